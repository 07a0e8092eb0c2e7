#!/usr/bin/env bash
# head.sh EXTRA SERVICE UID AGENTS: a head's machine, until the service is down. Two users share it: this one, which has the
# machine's credentials and rents, and disagctl-head, which has none and runs the head. The latter may open no connection to
# this machine's loopback (SkyPilot's API server listens there) or to the cloud's metadata service (it hands out credentials).
set -euo pipefail
extra=$1 service=$2 uid=$3 agents=$4
kit=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
. "$kit/places.sh"
account=disagctl-head state=/var/lib/disagctl run=/run/disagctl
root() { if [ "$(id -u)" = 0 ]; then "$@"; else sudo -n "$@"; fi; }

id "$account" >/dev/null 2>&1 || root useradd --system --user-group --no-create-home --home-dir "$state" --shell /usr/sbin/nologin "$account"
root install -d -m 0700 -o "$account" -g "$account" "$state"
root install -d -m 2750 -o "$(id -u)" -g "$account" "$run"
root bash "$kit/guard.sh" "$account"
case $cache in "$HOME"/*) ;; *) chmod go-rwx "$HOME" ;; esac # SkyPilot's keys and state, which disagctl-head has no use for

if [ -d ~/disagctl/models ]; then # where disagctl-head can read them, too
  rm -rf "$cache/models"
  cp -RL ~/disagctl/models "$cache/models"
  chmod -R a+rX "$cache/models"
fi
if [ -e ~/disagctl/secrets.env ]; then # NAME='value' lines, for the machines to come
  set -a
  . ~/disagctl/secrets.env
  set +a
  rm -f ~/disagctl/secrets.env
fi

cat >"$cache/as-head.new" <<END
#!/usr/bin/env bash
# as-head MODULE [ARGUMENT…]: run one of disagctl's modules as the head's user.
exec $([ "$(id -u)" = 0 ] || echo 'sudo -n') runuser -u $account -- env -C $state -i PATH="$PATH" LANG=C.UTF-8 PYTHONUNBUFFERED=1 \\
  DISAGCTL_HOME=$state PYTHONPATH="$code" "$libraries/bin/python" -m "\$@"
END
chmod 755 "$cache/as-head.new"
mv "$cache/as-head.new" "$cache/as-head"

export PYTHONPATH="$code" PATH="$libraries/bin:$PATH"
cd /
"$libraries/bin/python" -m disagctl.headnode.keeper "$service" "$uid" "$account" "$run/renter.sock" "$agents" &
keeper=$!
trap 'kill $keeper 2>/dev/null' EXIT
result=1
for _ in 1 2 3 4 5 6 7 8 9 10; do # it starts a head that died again; should it die itself, it is started again
  result=0
  "$cache/as-head" disagctl.headnode.watch "$service" || result=$?
  [ $result != 0 ] || break
  sleep 5
done
exit $result
