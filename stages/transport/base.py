"""One interface over every way to move a parcel from the worker that made it to the one that needs it.

Receivers pull: a producer *offers* a parcel under a key and keeps it until the head says that it is no longer needed; a
consumer *fetches* from whichever route of the offer it can use. Pulling makes redelivery trivial (fetch again, or
elsewhere) and gives the receiver the say over its own memory.
"""

from typing import Literal, Protocol

from stages.parcel import Parcel
from stages.protocol import Offer, Via


class FetchError(RuntimeError):
    """No route of the offer delivered the promised bytes within the deadline. The message says what each one did.

    ``gone``: whoever should hold them says that it does not: asking again is of no use. ``unreachable``: nobody answered.
    """

    def __init__(self, message: str, *, gone: bool = False, unreachable: bool = False) -> None:
        super().__init__(message)
        self.gone = gone
        self.unreachable = unreachable


class OutboxError(RuntimeError):
    """The parcel cannot be offered in this mode. The message says what would make it possible."""


class OutboxFull(OutboxError):
    """Keeping the parcel would exceed the outbox's limit: wait until something is dropped."""


class UploadError(RuntimeError):
    """The artefact was not stored. ``code`` is the data server's (full, bad_request …) or ``lost`` when none came."""

    def __init__(self, message: str, code: str = "lost") -> None:
        super().__init__(message)
        self.code = code


TransportMode = Literal["auto", "inline", "shm", "zmq", "mooncake", "relay"]


class Outbox(Protocol):
    """Producer's side: keeps parcels until they are dropped."""

    def offer(self, key: str, parcel: Parcel) -> Offer:
        """Keep the parcel and say how it can be fetched. Copies at most once; called off the compute thread."""

    def drop(self, key: str) -> None:
        """Free it. Unknown keys are ignored."""

    def read(self, key: str, index: int, offset: int, length: int) -> memoryview | None:
        """Bytes of a tensor that is kept; None when it is not."""

    def held_bytes(self) -> int:
        """Bytes kept at present."""

    def close(self) -> None:
        """Drop everything, remove segments and sockets."""


class Fetcher(Protocol):
    """Consumer's side."""

    @property
    def via(self) -> Via | None:
        """What brought the last parcel, and why that."""

    def fetch(self, offer: Offer, deadline_s: float) -> Parcel:
        """Bring the parcel here, verified. Blocks up to ``deadline_s`` seconds; raises FetchError."""

    def close(self) -> None:
        """Close connections."""
