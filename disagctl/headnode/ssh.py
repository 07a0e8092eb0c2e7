"""SSH to the machine that a head has to itself: commands there, and its administration socket as one of this machine's."""

import contextlib
import os
import shlex
import socket
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from disagctl.errors import UnhealthyError, UsageError
from disagctl.state import HeadNode, ServicePaths, ServiceRecord

AS_HEAD: Final = "/opt/disagctl/as-head"  # task_templates/kit/head.sh writes it
SSH_FAILED: Final = 255
KEEP_S: Final = 60  # an idle connection; `down` ends it at once
CONNECT_S: Final = 15
BACKLOG: Final = 16


def command(where: ServicePaths, head: HeadNode, *words: str) -> list[str]:
    """The argv that runs ``words`` there as the head's user: a module of ours and its arguments."""
    options = {
        "IdentityFile": str(where.head_key),
        "IdentitiesOnly": "yes",
        "BatchMode": "yes",
        "StrictHostKeyChecking": "accept-new",
        "UserKnownHostsFile": str(where.head_hosts),
        "ConnectTimeout": str(CONNECT_S),
        "ServerAliveInterval": "10",
        "ControlMaster": "auto",
        "ControlPath": str(_control_folder() / "%C"),
        "ControlPersist": str(KEEP_S),
        "LogLevel": "ERROR",
    }
    if head.proxy:
        options["ProxyCommand"] = head.proxy
    flags = [flag for name, value in options.items() for flag in ("-o", f"{name}={value}")]
    target = ["-p", str(head.port), f"{head.user}@{head.host}"]
    return ["ssh", "-F", "none", "-T", *flags, *target, "--", shlex.join([AS_HEAD, *words])]


def hang_up(where: ServicePaths, head: HeadNode) -> None:
    """End the connection that is kept; harmless when there is none."""
    argv = command(where, head)
    at = argv.index("--")
    subprocess.run([*argv[: at - 1], "-O", "exit", argv[at - 1]], capture_output=True, check=False, timeout=CONNECT_S)


def head_of(record: ServiceRecord) -> HeadNode:
    """The head's machine, once SSH can reach it. Raises UnhealthyError before."""
    if record.head is None or not record.head.host:
        raise UnhealthyError(
            f"the machine of {record.name}'s head is not up", code="head_down",
            next=f"disagctl up SPEC goes on; disagctl down {record.name} -y gives it back",
        )  # fmt: skip
    return record.head


@contextmanager
def tunnel(where: ServicePaths, record: ServiceRecord) -> Iterator[str]:
    """A socket here whose every connection ends at the head's administration socket; valid inside the block.

    Raises UnhealthyError while the machine is not up; when it does not answer, connections are closed at once.
    """
    argv = command(where, head_of(record), "disagctl.headnode.relay", where.name)
    with tempfile.TemporaryDirectory(prefix="disagctl-", dir="/tmp") as folder:  # 0700, and short
        path = str(Path(folder, "admin.sock"))
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        sessions: list[subprocess.Popen[bytes]] = []
        with listener:
            listener.bind(path)
            listener.listen(BACKLOG)
            thread = threading.Thread(target=_accept, args=(listener, argv, sessions), daemon=True)
            thread.start()
            try:
                yield path
            finally:
                with contextlib.suppress(OSError):
                    listener.shutdown(socket.SHUT_RDWR)
                thread.join(CONNECT_S)
                for session in sessions:
                    session.terminate()
                for session in sessions:
                    session.wait()


def _accept(listener: socket.socket, argv: list[str], sessions: "list[subprocess.Popen[bytes]]") -> None:
    while True:
        try:
            connection, _ = listener.accept()
        except OSError:
            return
        with connection:  # ssh has its own hold of it
            sessions.append(
                subprocess.Popen(argv, stdin=connection.fileno(), stdout=connection.fileno(), stderr=subprocess.DEVNULL)
            )


def _control_folder() -> Path:
    """Sockets of connections that are kept: their names must be short. Raises UsageError when it is not ours."""
    folder = Path(f"/tmp/disagctl-ssh-{os.getuid()}")  # noqa: S108  # ours alone, or refused
    folder.mkdir(mode=0o700, exist_ok=True)
    found = folder.lstat()
    if found.st_uid != os.getuid() or found.st_mode & 0o077:
        raise UsageError(f"{folder} is somebody else's, or open to others", next=f"remove {folder}")
    return folder
