"""What a policy has learnt, as bytes for the store."""

import msgspec

from planner.domain import Role, Shape
from planner.run.observe import Lapse

VERSION = 1


class Memory(msgspec.Struct):
    """Service times by (role, accelerator, shape, log seconds, samples); delays that were measured; requests a second by
    model and shape."""

    timings: list[tuple[Role, str, Shape, float, int]] = []
    lapses: list[Lapse] = []
    rates: list[tuple[str, Shape, float]] = []
    version: int = VERSION

    def encode(self) -> bytes:
        """As JSON."""
        return msgspec.json.encode(self)

    @classmethod
    def decode(cls, data: bytes) -> "Memory":
        """What another head wrote; nothing when that is not understood (it is learnt again)."""
        try:
            found = msgspec.json.decode(data, type=cls)
        except msgspec.DecodeError:
            return cls()
        return found if found.version == VERSION else cls()
