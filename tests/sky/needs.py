"""What the simulated infrastructure needs of this machine, and how to get it."""

import importlib.util
import os
import shutil
import subprocess
from pathlib import Path

SLURM = {
    "slurmctld": "slurmctld",
    "slurmd": "slurmd",
    "srun": "slurm-client",
    "munged": "munge",
    "sshd": "openssh-server",
    "ssh": "openssh-client",
    "rsync": "rsync",
    "nc": "netcat-openbsd",
    "socat": "socat",
    "curl": "curl",
    "ps": "procps",
    "unshare": "util-linux",
}
EC2 = {
    "sudo": "sudo",
    "ip": "iproute2",
    "nft": "nftables",
    "sshd": "openssh-server",
    "ssh": "openssh-client",
    "rsync": "rsync",
    "nc": "netcat-openbsd",
    "unshare": "util-linux",
}
SBIN = "/usr/local/sbin:/usr/sbin:/sbin"


def which(command: str) -> str | None:
    """Where a command is, also an administrator's."""
    return shutil.which(command, path=f"{os.environ.get('PATH', '')}:{SBIN}")


def why_not(commands: dict[str, str], modules: tuple[str, ...]) -> str | None:
    """The reason that this machine cannot carry it; None when it can."""
    if os.name != "posix" or not Path("/proc/self/ns").is_dir():
        return "it needs Linux and its namespaces"
    if os.geteuid() != 0:
        return "it needs root: daemons, namespaces and a system user"
    for module in modules:
        if importlib.util.find_spec(module) is None:
            return f"Python has no module {module} here: make test-sky installs it"
    missing = [command for command in commands if which(command) is None]
    if missing and shutil.which("apt-get") is None:
        return f"there is no {', '.join(missing)} here, and no apt-get to install it with"
    command = ["unshare", "--uts", "--mount", "--pid", "--fork", "true"]
    probe = subprocess.run(command, capture_output=True, text=True, check=False)
    return None if probe.returncode == 0 else f"this machine allows no namespaces: {probe.stderr.strip()}"


def install(commands: dict[str, str]) -> None:
    """Install the Debian packages that are missing; none of their services is started."""
    missing = sorted({package for command, package in commands.items() if which(command) is None})
    if not missing:
        return
    environment = os.environ | {"DEBIAN_FRONTEND": "noninteractive", "RUNLEVEL": "1"}
    update = ["apt-get", "update", "-qq"]
    add = ["apt-get", "install", "-y", "-qq", "--no-install-recommends", *missing]
    for command in (update, add):
        done = subprocess.run(
            command, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
        )
        if done.returncode != 0:
            msg = f"{' '.join(command)} ended with {done.returncode}: {done.stderr[-2000:]}"
            raise RuntimeError(msg)
