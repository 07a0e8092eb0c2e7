"""The last stage's file on its way to the head: in the message when it is small, else uploaded."""

import logging
import time
from collections.abc import Callable
from typing import Final, Protocol

from planner.domain import TaskRef
from stages.checksum import checksum
from stages.models.base import File
from stages.protocol import INLINE_BYTES, Artifact
from stages.transport.base import UploadError

log = logging.getLogger(__name__)

UPLOAD_DEADLINE_S: Final = 60.0
UPLOAD_PATIENCE_S: Final = 3600.0
UPLOAD_PAUSE_S: Final = 1.0


class Uploader(Protocol):
    """How a large artefact gets to the head."""

    def upload(self, key: str, data: bytes, checksum: int, deadline_s: float) -> None:
        """Push and return once it is stored. Raises FetchError."""


def stored(ref: TaskRef, file: File, uploader: Uploader, wanted: Callable[[], bool]) -> Artifact:
    """Have the head store the file. Raises UploadError when it does not for long, or when the file is no longer wanted."""
    digest = checksum(file.data)
    if len(file.data) <= INLINE_BYTES:
        return Artifact(file.mime, len(file.data), digest, file.data)
    _upload(ref, file.data, digest, uploader, wanted)
    return Artifact(file.mime, len(file.data), digest)


def _upload(ref: TaskRef, data: bytes, digest: int, uploader: Uploader, wanted: Callable[[], bool]) -> None:
    """Until it is stored: a head that restarts or whose disk is full will take it later, and nobody else has it."""
    patience_end = time.monotonic() + UPLOAD_PATIENCE_S
    while True:
        try:
            uploader.upload(ref.key, data, digest, UPLOAD_DEADLINE_S)
        except UploadError as err:
            if not wanted() or time.monotonic() > patience_end:
                raise
            log.warning("the head does not take the file of %s yet: %s", ref.request, err)
            time.sleep(UPLOAD_PAUSE_S)
        else:
            return
