"""What ``up`` sends to the machine that a head has to itself, and what that answers: one JSON document each way."""

from typing import Final

import msgspec

from disagctl.errors import DisagctlError
from disagctl.state import ServiceRecord

MOST_BYTES: Final = 32 << 20


class Order(msgspec.Struct, frozen=True):
    """Have this service run. ``deployment``: None where it stays as it is. Certificates travel as they are."""

    record: ServiceRecord
    spec: str
    deployment: bytes | None = None
    certificate: bytes | None = None
    private_key: bytes | None = None


class Refusal(msgspec.Struct, frozen=True):
    """Why it does not. Empty: it does."""

    what: str = ""
    why: str = ""
    next: str = ""
    code: str = ""


def refusal(err: DisagctlError) -> Refusal:
    """An error for the way back."""
    return Refusal(err.what, err.why, err.next, err.error_code)
