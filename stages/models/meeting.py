"""The private folder in which a worker's processes meet, and what becomes of it when the worker is killed.

Its owner holds a lock in it, which goes with the process whatever ends it. Whoever makes the next folder on the machine
removes those whose lock nobody holds.
"""

import fcntl
import os
import shutil
import tempfile
from pathlib import Path
from typing import Final

PREFIX: Final = "disagctl-ranks-"
LOCK: Final = "lock"


class Meeting:
    """A folder of mode 0700. Raises OSError where none can be made."""

    def __init__(self) -> None:
        sweep()
        self.folder = tempfile.mkdtemp(prefix=PREFIX)
        half = Path(self.folder, f"{LOCK}.new")
        self._lock = os.open(half, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
        fcntl.flock(self._lock, fcntl.LOCK_EX)
        half.rename(half.with_name(LOCK))  # there, it is held

    def close(self) -> None:
        """Remove it."""
        shutil.rmtree(self.folder, ignore_errors=True)
        os.close(self._lock)


def sweep() -> None:
    """Remove what workers of this user left that were killed."""
    for folder in Path(tempfile.gettempdir()).glob(f"{PREFIX}*"):
        try:
            lock = os.open(folder / LOCK, os.O_RDWR | os.O_NOFOLLOW)
        except OSError:
            continue  # another user's, or about to be one
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(folder, ignore_errors=True)
        except BlockingIOError:
            pass  # its worker lives
        finally:
            os.close(lock)
