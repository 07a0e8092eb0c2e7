"""A log file that a process writes to through a file descriptor, kept below a size by its owner."""

import os
import shutil
from contextlib import suppress
from pathlib import Path
from typing import Final

LIMIT_BYTES: Final = 16 << 20


class LogFile:
    """Opened for appending, mode 0600. ``trim`` moves a file that grew too large to ``<name>.1`` and starts over."""

    def __init__(self, path: Path, limit_bytes: int = LIMIT_BYTES) -> None:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.path, self._limit = path, limit_bytes
        self.fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)

    def trim(self) -> None:
        """Copy and truncate in place: the writer's descriptor, opened for appending, goes on at the new end."""
        if os.fstat(self.fd).st_size > self._limit:
            with suppress(OSError):  # on a full disk the old part is lost; the bound holds
                shutil.copyfile(self.path, self.path.with_name(self.path.name + ".1"))
            os.ftruncate(self.fd, 0)

    def close(self) -> None:
        """Close our descriptor."""
        os.close(self.fd)
