"""An error of ours as data, for the way between two of our processes."""

import msgspec

from disagctl import errors
from disagctl.errors import DisagctlError, UnexpectedError

MOST_CHARS = 500


class Failed(msgspec.Struct, tag=True, frozen=True):
    """A DisagctlError of the class ``kind``."""

    kind: str
    what: str
    why: str = ""
    next: str = ""
    code: str = ""


def as_failed(err: Exception) -> Failed:
    """What is no error of ours is unexpected, and said in one line."""
    if not isinstance(err, DisagctlError):
        err = UnexpectedError(f"{type(err).__name__}: {err}"[:MOST_CHARS])
    return Failed(type(err).__name__, err.what, err.why, err.next, err.error_code)


def as_error(failed: Failed) -> DisagctlError:
    """The same error again."""
    kind = getattr(errors, failed.kind, UnexpectedError)
    if not (isinstance(kind, type) and issubclass(kind, DisagctlError) and kind is not errors.SpecError):
        kind = UnexpectedError
    return kind(failed.what, why=failed.why, next=failed.next, code=failed.code)
