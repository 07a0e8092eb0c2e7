"""What SkyPilot's exceptions mean. They are known here by their class names, so that this needs no SkyPilot."""

import re
from typing import Final

import msgspec

from disagctl.errors import CredentialsError, DisagctlError, InfeasibleError, UnexpectedError
from disagctl.provision.base import Failure

_CREDENTIALS: Final = frozenset(
    {"NoCloudAccessError", "InvalidCloudCredentials", "CloudUserIdentityError", "ClusterOwnerIdentityMismatchError",
     "ApiServerAuthenticationError", "PermissionDeniedError", "NoWorkspaceAccessError"}
)  # fmt: skip
_QUOTA: Final = re.compile(r"quota|limit ?exceeded|vcpulimit|InstanceLimit", re.IGNORECASE)
_ACCESS: Final = re.compile(r"no access to|not enabled|credentials? (?:are|is) (?:not|invalid)", re.IGNORECASE)
_COLOUR: Final = re.compile(r"\x1b\[[0-9;]*m")
LINE_CHARS: Final = 300
TRIED: Final = 32


class Verdict(msgspec.Struct, frozen=True):
    """Why a launch came to nothing. ``failure`` None: none of the kinds known; trying again may help."""

    failure: Failure | None
    why: str
    tried: tuple[str, ...] = ()


def verdict(error: BaseException) -> Verdict:
    """What a launch's exception says.

    SkyPilot's ResourcesUnavailableError has a failover history when places were asked and had nothing (now), and none when
    no place offers such a thing at all.
    """
    name, why = type(error).__name__, one_line(error)
    if name in _CREDENTIALS:
        return Verdict("credentials", why)
    if not _is(error, "ResourcesUnavailableError"):
        return Verdict("impossible" if isinstance(error, ValueError) else None, f"{name}: {why}")
    history: list[BaseException] = list(getattr(error, "failover_history", None) or ())
    if not history:
        return Verdict("credentials" if _ACCESS.search(str(error)) else "impossible", why)
    tried = tuple(one_line(one) for one in history[:TRIED])
    kinds = {_kind(one) for one in history}
    kind: Failure = "quota" if kinds == {"quota"} else "credentials" if kinds == {"credentials"} else "no_capacity"
    return Verdict(kind, why, tried)


def as_error(found: Verdict, what: str) -> DisagctlError:
    """For whoever waits for the launch itself."""
    why = "; ".join(found.tried) or found.why
    match found.failure:
        case "credentials":
            return CredentialsError(what, why=why, next="`sky check` says which cloud has what")
        case "quota":
            return CredentialsError(
                what, why=why, next="ask the cloud for a higher quota, or name other infra", code="quota"
            )
        case "no_capacity" | "impossible":
            return InfeasibleError(what, why=why, code=found.failure)
        case None:
            return UnexpectedError(what, why=why)


def one_line(error: BaseException | str) -> str:
    """The first line that says something, without colours; bounded."""
    text = _COLOUR.sub("", str(error))
    lines = [" ".join(line.split()) for line in text.splitlines()]
    line = next((line for line in lines if line), type(error).__name__)
    return line if len(line) <= LINE_CHARS else line[: LINE_CHARS - 1] + "…"


def _kind(error: BaseException) -> Failure:
    if type(error).__name__ in _CREDENTIALS:
        return "credentials"
    return "quota" if _QUOTA.search(str(error)) else "no_capacity"


def _is(error: BaseException, name: str) -> bool:
    return any(kind.__name__ == name for kind in type(error).__mro__)
