"""Processes that outlive the command that started them, each known by a record of its own."""

import contextlib
import json
import os
import subprocess
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import psutil

# A host of its own: host name, /etc/hosts, shared memory and processes. Ending the first process ends every other one.
# The shell stays as process 1 because somebody must wait for orphans there.
HOST = """
hostname "$1" && mount --bind "$2" /etc/hosts && mount -t tmpfs -o size=4g,mode=1777 tmpfs /dev/shm || exit 1
shift 2
"$@" &
wait $!
"""


def as_host(name: str, hosts: Path, command: list[str]) -> list[str]:
    """The command line that runs ``command`` as a host called ``name``."""
    flags = ["--uts", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]
    return ["unshare", *flags, "sh", "-c", HOST, "sh", name, str(hosts), *command]


STARTED: list["subprocess.Popen[bytes]"] = []  # kept, because one that is forgotten while it runs is a warning


class Daemons:
    """Records below ``folder``: name.json with pid and start time, name.log with what it said."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def find(self, name: str) -> psutil.Process | None:
        """The process, when it still runs."""
        try:
            record = json.loads((self.folder / f"{name}.json").read_text())
            process = psutil.Process(record["pid"])
        except (OSError, ValueError, psutil.Error):
            return None
        same = abs(process.create_time() - record["created"]) < 1.0
        return process if same and process.status() != psutil.STATUS_ZOMBIE else None

    def start(self, name: str, command: list[str], environment: Mapping[str, str]) -> None:
        """Start it unless it runs."""
        if self.find(name) is not None:
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        log_fd = os.open(self.folder / f"{name}.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        try:
            child = subprocess.Popen(
                command,
                env=dict(environment),
                stdin=subprocess.DEVNULL,
                stdout=log_fd,
                stderr=log_fd,
                start_new_session=True,
                cwd="/",
            )
        finally:
            os.close(log_fd)
        STARTED.append(child)
        record = {"pid": child.pid, "created": psutil.Process(child.pid).create_time()}
        (self.folder / f"{name}.json").write_text(json.dumps(record))

    def kill(self, name: str) -> bool:
        """SIGKILL it (of a host: everything on it); whether it ran."""
        process = self.find(name)
        (self.folder / f"{name}.json").unlink(missing_ok=True)
        if process is None:
            return False
        family = [process, *process.children(recursive=True)]
        process.kill()
        _, left = psutil.wait_procs(family, 5)
        for one in left:
            with contextlib.suppress(psutil.NoSuchProcess):
                one.kill()
        psutil.wait_procs(left, 5)
        return True

    def kill_all(self) -> None:
        """Every one that is recorded."""
        for record in sorted(self.folder.glob("*.json")):
            self.kill(record.stem)


def wait_for(what: str, true: Callable[[], bool], timeout: float, every: float = 0.25) -> None:
    """Until it is so; RuntimeError after ``timeout`` seconds."""
    deadline = time.monotonic() + timeout
    while not true():
        if time.monotonic() > deadline:
            msg = f"{what}: not within {timeout:g} s"
            raise RuntimeError(msg)
        time.sleep(every)
