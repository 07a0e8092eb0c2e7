"""The Slurm: up, down, and what breaks on it."""

import contextlib
import os
import pwd
import secrets
import shutil
import subprocess
from pathlib import Path

import psutil

from tests.sky import slurm_conf
from tests.sky.catalogs import write_catalogs
from tests.sky.daemons import Daemons, as_host, wait_for
from tests.sky.needs import SLURM as COMMANDS
from tests.sky.needs import install, why_not
from tests.sky.shims import pip_conf, write_shims
from tests.sky.site import NUMBER, Site, sky_command

USER = f"disagctl-slurm{NUMBER or ''}"
SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
SSHD = """\
Port {port}
ListenAddress 127.0.0.1
HostKey {base}/ssh/host
PidFile {base}/run/sshd.pid
StrictModes no
UsePAM no
PasswordAuthentication no
AuthorizedKeysFile .ssh/authorized_keys
AllowUsers {user}
MaxSessions 200
MaxStartups 150:30:200
SetEnv PATH={path} SLURM_CONF={base}/etc/slurm.conf
Subsystem sftp internal-sftp
"""
SSH_CLIENT = """\
Host {cluster}
    HostName 127.0.0.1
    Port {port}
    User {user}
    IdentityFile {base}/ssh/id
    IdentitiesOnly yes
"""
PROFILE = "export PATH={shims}:$PATH SLURM_CONF={base}/etc/slurm.conf\n[ -f ~/.bashrc ] && . ~/.bashrc\n"


class Slurm:
    """One Slurm below a site."""

    nodes = slurm_conf.NODES

    def __init__(self, site: Site) -> None:
        self.site = site
        self.base = site.slurm
        self.daemons = Daemons(self.base / "daemons")
        path = f"{site.shims}:{SYSTEM_PATH}"
        self._environment = {"PATH": path, "SLURM_CONF": str(self.base / "etc/slurm.conf")}

    @staticmethod
    def why_not() -> str | None:
        """The reason that it cannot run here."""
        return why_not(COMMANDS, ("sky", "uv", "psutil"))

    def up(self) -> None:
        """Bring up what is not; returns when every node takes jobs."""
        install(COMMANDS)
        for name in ("etc", "run", "log", "spool", "state", "dev", "ssh"):
            (self.base / name).mkdir(parents=True, exist_ok=True)
        write_shims(self.site)
        self._user()
        self._configuration()
        self._munge()
        self.daemons.start("slurmctld", ["slurmctld", "-D"], self._environment)
        for node in self.nodes:
            self.revive(node)
        Path("/run/sshd").mkdir(exist_ok=True)  # sshd insists on it
        sshd = [shutil.which("sshd", path=SYSTEM_PATH) or "sshd", "-D", "-e", "-f", str(self.base / "ssh/sshd_config")]
        self.daemons.start("login", as_host("login", self.base / "etc/hosts", sshd), self._environment)
        self._client()
        self.mend()
        self.site.start_api()

    def down(self) -> None:
        """Take everything away again: jobs, daemons, files, the user."""
        if (self.site.home / ".sky").exists():
            self.site.run(sky_command(), "api", "stop", check=False)
        self.daemons.kill_all()
        with contextlib.suppress(KeyError):
            uid = pwd.getpwnam(USER).pw_uid
            for process in psutil.process_iter(["uids"]):
                if process.info["uids"] and process.info["uids"].real == uid:
                    process.kill()
            for path in Path("/tmp").iterdir():  # SkyPilot's runtime and uv's cache of each cluster
                with contextlib.suppress(FileNotFoundError):  # others come and go there
                    if path.lstat().st_uid == uid:
                        shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink()
            subprocess.run(["userdel", USER], capture_output=True, check=False)
        shutil.rmtree(self.base, ignore_errors=True)
        self.site.tidy()

    def is_up(self) -> bool:
        """Whether its daemons run."""
        names = ("munged", "slurmctld", "login", *(f"node-{node}" for node in self.nodes))
        return all(self.daemons.find(name) is not None for name in names)

    def kill_node(self, node: str) -> None:
        """End a machine at once: slurmd, SkyPilot's and every other process on it."""
        self.daemons.kill(f"node-{node}")

    def revive(self, node: str) -> None:
        """Start a machine that does not run."""
        command = ["slurmd", "-D", "-N", node]
        self.daemons.start(f"node-{node}", as_host(node, self.base / "etc/hosts", command), self._environment)

    def drain(self, *nodes: str) -> None:
        """Let these take no further jobs: no capacity there."""
        if nodes:
            self._admin("scontrol", "update", f"nodename={','.join(nodes)}", "state=drain", "reason=test")

    def resume(self, *nodes: str) -> None:
        """Undo ``drain``."""
        if nodes:
            self._admin("scontrol", "update", f"nodename={','.join(nodes)}", "state=resume")

    def mend(self) -> None:
        """Every node runs and takes jobs."""
        for node in self.nodes:
            self.revive(node)
        missing = [node for node in self.nodes if node not in self.idle()]
        self.resume(*missing)
        wait_for("every node takes jobs", lambda: set(self.idle()) >= set(self.nodes), 60)

    def idle(self) -> list[str]:
        """The nodes that answer and are not drained (sinfo's own filter counts a drained one as idle)."""
        lines = [line.split() for line in self._admin("sinfo", "-h", "-N", "-o", "%N %t").splitlines()]
        return [name for name, state in lines if state in ("idle", "mix", "alloc")]

    def jobs(self) -> list[str]:
        """Every job that Slurm has: "name node state"."""
        return self._admin("squeue", "-h", "-o", "%j %N %T").splitlines()

    def _admin(self, *command: str) -> str:
        environment = os.environ | self._environment
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=20, check=False)
        return done.stdout

    def _user(self) -> None:
        home = self.base / "home"
        try:
            pwd.getpwnam(USER)
        except KeyError:
            subprocess.run(["useradd", "-M", "-d", str(home), "-s", "/bin/bash", "-p", "*", USER], check=True)
        (home / ".ssh").mkdir(parents=True, exist_ok=True)
        for name in ("id", "host"):
            if not (self.base / "ssh" / name).exists():
                key = str(self.base / "ssh" / name)
                subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "test", "-f", key], check=True)
        (home / ".ssh/authorized_keys").write_bytes((self.base / "ssh/id.pub").read_bytes())
        (home / ".bash_profile").write_text(PROFILE.format(shims=self.site.shims, base=self.base))
        (home / ".bashrc").touch()
        (home / ".config/pip").mkdir(parents=True, exist_ok=True)
        (home / ".config/pip/pip.conf").write_text(pip_conf())
        for path in (home, *(home / part for part in (".ssh", ".config", ".config/pip"))):
            shutil.chown(path, USER)
            path.chmod(0o700)
        for name in (".ssh/authorized_keys", ".bash_profile", ".bashrc", ".config/pip/pip.conf"):
            shutil.chown(home / name, USER)

    def _configuration(self) -> None:
        etc = self.base / "etc"
        (etc / "slurm.conf").write_text(slurm_conf.slurm_conf(self.base))
        (etc / "gres.conf").write_text(slurm_conf.gres_conf(self.base))
        (etc / "hosts").write_text(Path("/etc/hosts").read_text() + slurm_conf.hosts())
        for index in range(slurm_conf.GPUS_A_NODE):
            device = self.base / f"dev/nvidia{index}"
            if not device.exists():
                os.mknod(device, 0o20666, os.makedev(1, 3))  # Slurm wants a character device: this one is /dev/null
                device.chmod(0o666)
        for node in self.nodes:
            (self.base / "spool" / node).mkdir(exist_ok=True)
        sshd = SSHD.format(port=slurm_conf.SSH_PORT, base=self.base, user=USER, path=self._environment["PATH"])
        (self.base / "ssh/sshd_config").write_text(sshd)

    def _munge(self) -> None:
        """A munge of its own: key and socket lie here and not in /etc and /run."""
        key = self.base / "etc/munge.key"
        if not key.exists():
            key.write_bytes(secrets.token_bytes(1024))
            key.chmod(0o400)
        run = self.base / "run"
        files = {"socket": run / "munge.socket", "key-file": key, "pid-file": run / "munged.pid"}
        files |= {"seed-file": run / "munged.seed", "log-file": self.base / "log/munged.log"}
        flags = [f"--{name}={path}" for name, path in files.items()]
        self.daemons.start("munged", ["munged", "--foreground", "--force", *flags], self._environment)
        wait_for("munge answers", (run / "munge.socket").exists, 10)

    def _client(self) -> None:
        home = self.site.home
        (home / ".slurm").mkdir(parents=True, exist_ok=True)
        (home / ".sky").mkdir(exist_ok=True)
        client = SSH_CLIENT.format(cluster=slurm_conf.CLUSTER, port=slurm_conf.SSH_PORT, user=USER, base=self.base)
        (home / ".slurm/config").write_text(client)
        (home / ".sky/config.yaml").write_text(slurm_conf.sky_config())
        write_catalogs(home)
