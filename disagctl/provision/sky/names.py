"""A cluster's name says whose it is: SkyPilot knows clusters by name, and not every provider has labels."""

import re
from typing import Final, NamedTuple

PREFIX: Final = "dis"
_NAME: Final = re.compile(rf"{PREFIX}-(?P<uid>[0-9a-z]+)-(?P<node>[0-9a-z]+)-(?P<intent>[0-9a-z]+)")


class Owner(NamedTuple):
    """What a name says."""

    uid: str
    node: str
    intent: str


def cluster_name(uid: str, node: str, intent: str) -> str:
    """The cluster of this intent; another intent of the same node is another cluster."""
    return f"{PREFIX}-{uid}-{node}-{intent}"


def owner(name: str) -> Owner | None:
    """Whose cluster it is; None when it is none of ours."""
    found = _NAME.fullmatch(name)
    return None if found is None else Owner(*found.groups())


def labels(uid: str, node: str, intent: str) -> dict[str, str]:
    """Tags for the machine, where its provider has tags: what a person finds in the provider's own console."""
    return {"disagctl-service": uid, "disagctl-node": node, "disagctl-intent": intent}
