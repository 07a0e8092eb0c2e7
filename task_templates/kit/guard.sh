#!/usr/bin/env bash
# guard.sh ACCOUNT (as root): this account opens no connection to loopback, nor to the cloud's metadata service.
set -euo pipefail
uid=$(id -u "$1")
if command -v nft >/dev/null; then
  nft -f - <<END
table inet disagctl {}
delete table inet disagctl
table inet disagctl {
  chain out {
    type filter hook output priority 0;
    meta skuid $uid ip daddr 169.254.0.0/16 reject
    meta skuid $uid ip6 daddr { fe80::/10, fd00:ec2::/32 } reject
    meta skuid $uid oif "lo" tcp flags & (syn | ack) == syn reject
  }
}
END
elif command -v iptables >/dev/null; then
  for words in "-d 169.254.0.0/16" "-o lo -p tcp --syn"; do
    # shellcheck disable=SC2086  # several words
    iptables -C OUTPUT -m owner --uid-owner "$uid" $words -j REJECT 2>/dev/null ||
      iptables -I OUTPUT -m owner --uid-owner "$uid" $words -j REJECT
  done
  for words in "-d fe80::/10" "-d fd00:ec2::/32" "-o lo -p tcp --syn"; do
    # shellcheck disable=SC2086
    ip6tables -C OUTPUT -m owner --uid-owner "$uid" $words -j REJECT 2>/dev/null ||
      ip6tables -I OUTPUT -m owner --uid-owner "$uid" $words -j REJECT
  done
else
  echo "neither nft nor iptables is here: the head's account could not be kept from this machine's credentials" >&2
  exit 1
fi
