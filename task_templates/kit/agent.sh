#!/usr/bin/env bash
# agent.sh EXTRA: the node's agent, until the head says that it is over or has been silent for too long.
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
"$libraries/bin/python" -m stages.agent "$PWD/bootstrap.json" || result=$?
# SkyPilot ends an idle machine, but no Slurm allocation: that is for us to do. After a failure a minute is left to read why.
if [ -n "${SLURM_JOB_ID:-}" ]; then
  [ $result = 0 ] || { echo "the agent ended with $result; this allocation ends in a minute" >&2; sleep 60; }
  scancel "$SLURM_JOB_ID"
fi
exit $result
