"""The uids of every service that ever rented machines from this state directory: what ``gc`` may look for, and nothing else."""

from pathlib import Path

import msgspec

from disagctl.state import ServiceRecord, home, write_private


class KnownUid(msgspec.Struct, frozen=True):
    """A service's tag. The service itself may be long gone."""

    uid: str
    name: str
    created_at: float


def remember_uid(record: ServiceRecord) -> None:
    """Before the first machine is asked for."""
    remember(KnownUid(record.uid, record.name, record.created_at))


def remember(one: KnownUid) -> None:
    """The same of a tag that is no service's."""
    known = {each.uid: each for each in known_uids()}
    known[one.uid] = one
    write_private(_file(), msgspec.json.format(msgspec.json.encode(list(known.values()))))


def known_uids() -> list[KnownUid]:
    """All of them, the oldest first."""
    try:
        return msgspec.json.decode(_file().read_bytes(), type=list[KnownUid])
    except (FileNotFoundError, msgspec.DecodeError):
        return []


def _file() -> Path:
    return home() / "uids.json"
