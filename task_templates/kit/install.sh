#!/usr/bin/env bash
# install.sh EXTRA: what a node of a disagctl service needs, below ~/.cache/disagctl of the user (or $DISAGCTL_CACHE).
# The libraries go into a virtual environment named after the lock, once per file system: nodes that share a home wait for
# one another here. The code itself is a wheel, unpacked into a folder named after its content.
set -euo pipefail
extra=$1
kit=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
. "$kit/places.sh"
# SkyPilot ends an idle machine, but no Slurm allocation: one whose set-up failed ends soon, also when no head runs to see it.
trap '[ $? = 0 ] || [ -z "${SLURM_JOB_ID:-}" ] || scontrol update "jobid=$SLURM_JOB_ID" EndTime=now+3minutes' EXIT
mkdir -p "$cache" 2>/dev/null || sudo -n install -d -m 0755 -o "$(id -u)" "$cache"
exec 9>"$cache/install.lock"
flock -w 3600 9 || { echo "another installation holds $cache/install.lock for an hour: giving up" >&2; exit 1; }

command -v uv >/dev/null || { echo "there is no uv here; SkyPilot installs it into ~/.local/bin" >&2; exit 1; }
export UV_CACHE_DIR="$cache/uv" UV_PYTHON_INSTALL_DIR="$cache/python" UV_NO_PROGRESS=1
if [ ! -e "$libraries/.complete" ]; then
  started=$SECONDS
  rm -rf "$libraries"
  uv venv -q --python 3.11 "$libraries"
  wheel=("$kit"/*.whl)
  uv pip install -q --python "$libraries/bin/python" -c "$kit/constraints.txt" "${wheel[0]}${extra:+[$extra]}" ${also:+"$also"}
  uv pip uninstall -q --python "$libraries/bin/python" disagctl # the code stands in front of it, below
  touch "$libraries/.complete"
  echo "installed the libraries into $libraries: $((SECONDS - started)) s"
fi
if [ ! -e "$code/.complete" ]; then
  rm -rf "$code"
  uv pip install -q --python "$libraries/bin/python" --no-deps --target "$code" "$kit"/*.whl
  touch "$code/.complete"
fi
