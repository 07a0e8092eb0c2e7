# Sourced: where things lie on a node. $extra and $kit are set. On Slurm $HOME is the task's own folder, and goes with it.
export PATH="$HOME/.local/bin:$PATH"
also= flavour=
case $extra in
  auto) if [ -e /proc/driver/nvidia/version ]; then extra=worker-cuda; else extra=worker-cpu; fi ;;
  core) extra= ;;
  sky:*) also="skypilot[${extra#sky:}]" flavour=${extra//[:,]/-} extra=sky ;; # a head's machine: SkyPilot, and its clouds' libraries
esac
cache=${DISAGCTL_CACHE:-$(getent passwd "$(id -u)" | cut -d: -f6)/.cache/disagctl}
libraries="$cache/libraries-$(cat "$kit/lock.key")${extra:+-${flavour:-$extra}}-$(uname -m)"
code="$cache/code-$(cat "$kit/code.key")"
