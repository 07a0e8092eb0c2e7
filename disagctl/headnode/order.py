"""What ``up`` sends to the machine that a head has to itself, and what that answers: one JSON document each way."""

from typing import Final

import msgspec

from disagctl.failed import Failed
from disagctl.state import ServiceRecord

MOST_BYTES: Final = 32 << 20


class Order(msgspec.Struct, frozen=True):
    """Have this service run. ``deployment``: None where it stays as it is. Certificates travel as they are."""

    record: ServiceRecord
    spec: str
    deployment: bytes | None = None
    certificate: bytes | None = None
    private_key: bytes | None = None


class Answer(msgspec.Struct, frozen=True):
    """Done, unless something ``failed``."""

    failed: Failed | None = None
