#!/usr/bin/env bash
# profile.sh EXTRA: measure what bootstrap.json asks for and print the rows, then wait a little for whoever fetches them.
set -euo pipefail
extra=$1
kit=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
. "$kit/places.sh"
cd "$kit/.."
chmod 600 bootstrap.json
if [ -e secrets.env ]; then # NAME='value' lines, for the processes started here and nobody else
  set -a
  . ./secrets.env
  set +a
  rm -f secrets.env
fi
export PYTHONPATH="$code" HF_HOME="${HF_HOME:-$cache/huggingface}"
result=0
"$libraries/bin/python" -m disagctl.profiling.errand "$PWD/bootstrap.json" || result=$?
sleep 300 # it is released sooner; else SkyPilot's autostop ends the machine, and this a Slurm allocation
if [ -n "${SLURM_JOB_ID:-}" ]; then scancel "$SLURM_JOB_ID"; fi
exit $result
