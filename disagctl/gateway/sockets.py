"""Listening sockets, made before the server that uses them."""

import errno
import os
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

BACKLOG: Final = 2048
_MAX_UNIX_PATH: Final = 100  # sun_path holds 108 bytes on Linux, 104 on macOS


def bind_tcp(host: str, port: int) -> socket.socket:
    """Listen on ``host``:``port`` (0: any free one)."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((host, port))
        sock.listen(BACKLOG)
        sock.setblocking(False)
    except BaseException:
        sock.close()
        raise
    return sock


def bind_unix(path: Path) -> socket.socket:
    """Listen on ``path``, mode 0600, however long it is. A dead predecessor's socket is replaced.

    Raises OSError (EADDRINUSE) when somebody still answers there.
    """
    with short_path(path) as short:
        _remove_dead(short)
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            sock.bind(short)
            # Nobody can connect before listen(), so the mode that the umask left open for a moment lets nobody in.
            # The umask itself belongs to the whole process, threads that write files included: not ours to change.
            Path(short).chmod(0o600)
            sock.listen(BACKLOG)
            sock.setblocking(False)
        except BaseException:
            sock.close()
            raise
    return sock


@contextmanager
def short_path(path: Path) -> Iterator[str]:
    """A name for ``path`` that fits into a socket address, valid inside the block; for connecting as well."""
    if len(os.fsencode(path)) <= _MAX_UNIX_PATH:
        yield str(path)
        return
    if Path("/proc/self/fd").is_dir():  # Linux
        folder = os.open(path.parent, os.O_PATH | os.O_DIRECTORY)
        try:
            yield f"/proc/self/fd/{folder}/{path.name}"
        finally:
            os.close(folder)
        return
    with tempfile.TemporaryDirectory(prefix="disagctl-", dir="/tmp") as tmp:  # 0700
        link = Path(tmp, "d")
        link.symlink_to(path.parent.absolute())
        yield str(link / path.name)


def _remove_dead(path: str) -> None:
    """Remove a socket that nobody listens on. Anything else stays."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.settimeout(1.0)
            probe.connect(path)
        except FileNotFoundError:
            return
        except ConnectionRefusedError:
            if not Path(path).is_socket():
                raise OSError(errno.EADDRINUSE, "there is a file in the socket's place") from None
            Path(path).unlink()
            return
    raise OSError(errno.EADDRINUSE, "another process answers on the administration socket")
