#!/usr/bin/env bash
# A "virtual machine": a network namespace on our bridge, a copy-on-write root of this machine, its own processes and host
# name, and an sshd. It ends with the process that this script becomes.
#   ec2_host.sh image FOLDER HOME COMMAND…          run a command as ubuntu in such a root whose /home/ubuntu is HOME
#   ec2_host.sh boot  FOLDER HOME IP KEYS ENDPOINT  boot one whose /home/ubuntu begins as a copy of HOME
set -euo pipefail
verb=$1 folder=$2 home=$3
root=$folder/root

make_root() { # inside mount, uts, pid and ipc namespaces of our own
  mkdir -p "$folder"/{upper,work,home-upper,home-work,root}
  mount --make-rprivate /
  mount -t overlay overlay -o "lowerdir=/,upperdir=$folder/upper,workdir=$folder/work" "$root"
  mount --rbind /dev "$root/dev"
  mount -t tmpfs tmpfs "$root/dev/shm"
  mount -t proc proc "$root/proc"
  for name in tmp run root; do mount -t tmpfs tmpfs "$root/$name"; done
  chmod 1777 "$root/tmp"
  mkdir -p "$root/run/sshd" "$root/home/ubuntu"
  if [ "$verb" = image ]; then
    mount --bind "$home" "$root/home/ubuntu"
  else
    mount -t overlay overlay -o "lowerdir=$home,upperdir=$folder/home-upper,workdir=$folder/home-work" "$root/home/ubuntu"
  fi
  mkdir -p "$root/home/ubuntu/opt-disagctl" "$root/opt/disagctl"
  mount --bind "$root/home/ubuntu/opt-disagctl" "$root/opt/disagctl" # as if a machine image had it
  chroot "$root" useradd -M -u 1500 -s /bin/bash -d /home/ubuntu -p '*' ubuntu
  echo 'ubuntu ALL=(ALL) NOPASSWD:ALL' >"$root/etc/sudoers.d/ubuntu"
  chmod 440 "$root/etc/sudoers.d/ubuntu"
  chroot "$root" chown ubuntu: /home/ubuntu /opt/disagctl
}

if [ "$verb" = image ]; then
  shift 3
  make_root
  exec chroot "$root" su - ubuntu -c "$*"
fi

ip=$4 keys=$5 endpoint=$6
make_root
name=ip-${ip//./-}
hostname "$name"
printf '127.0.0.1 localhost\n%s %s\n' "$ip" "$name" >"$root/etc/hosts"
echo "$name" >"$root/etc/hostname"
: >"$root/etc/resolv.conf"
mkdir -p "$root/home/ubuntu/.ssh"
cp "$keys" "$root/home/ubuntu/.ssh/authorized_keys"
chmod 700 "$root/home/ubuntu/.ssh"
chmod 600 "$root/home/ubuntu/.ssh/authorized_keys"
chroot "$root" chown -R ubuntu: /home/ubuntu/.ssh
rm -f "$root"/etc/ssh/ssh_host_ed25519_key*
chroot "$root" ssh-keygen -q -t ed25519 -N '' -f /etc/ssh/ssh_host_ed25519_key
cat >"$root/etc/ssh/sshd_config" <<EOF
UsePAM no
PasswordAuthentication no
HostKey /etc/ssh/ssh_host_ed25519_key
Subsystem sftp internal-sftp
SetEnv AWS_ENDPOINT_URL=http://$endpoint AWS_EC2_METADATA_SERVICE_ENDPOINT=http://${endpoint%:*}:$((${endpoint#*:} + 1))/
EOF
path=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
chroot "$root" env -i PATH=$path /usr/sbin/sshd -D &
wait $!
