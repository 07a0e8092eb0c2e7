"""What the handlers share: the service, the limits, and a count of the bytes they hold."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from disagctl.gateway.errors import ApiError
from disagctl.gateway.limits import Limits
from disagctl.service import Service


class Held:
    """Bytes that one request holds in memory."""

    def __init__(self, buffers: "Buffers") -> None:
        self._buffers = buffers
        self.nbytes = 0

    def add(self, nbytes: int) -> None:
        """Hold more. Raises ApiError (503) when all requests together would hold too much."""
        if self._buffers.nbytes + nbytes > self._buffers.most:
            message = "too many large requests at once"
            raise ApiError(503, message, code="overloaded", headers={"retry-after": "1"})
        self.nbytes += nbytes
        self._buffers.nbytes += nbytes


@dataclass
class Buffers:
    """The sum over all requests, and its bound."""

    most: int
    nbytes: int = 0

    @contextmanager
    def hold(self) -> Iterator[Held]:
        """An account that is settled at the end."""
        held = Held(self)
        try:
            yield held
        finally:
            self.nbytes -= held.nbytes


@dataclass
class Context:
    """One app's."""

    service: Service
    limits: Limits
    buffers: Buffers = field(init=False)

    def __post_init__(self) -> None:
        self.buffers = Buffers(self.limits.max_buffered)
