"""Machines that carry the tag of a service of this state directory and that no row of it covers: nobody would end them."""

import asyncio
from collections.abc import Callable, Sequence
from typing import Final

import msgspec

from disagctl.errors import DisagctlError, TeardownError
from disagctl.profiling.leases import covered as profiling
from disagctl.provision.base import NodeHandle, Provisioner, nothing_left
from disagctl.provision.choose import rented
from disagctl.state import read_record, services
from disagctl.store.offline import open_nodes
from disagctl.teardown import release_all
from disagctl.uids import KnownUid, known_uids

MakeProvisioner = Callable[[str, str], Provisioner]
NO_PROVIDER: Final = "the provider cannot be asked"


class Orphan(msgspec.Struct, frozen=True):
    """One of them. ``usd_per_hour`` None: its price is not known."""

    service: str
    uid: str
    node: str
    provider_id: str
    offer: str
    usd_per_hour: float | None
    handle: NodeHandle

    @property
    def name(self) -> str:
        """For people."""
        return self.provider_id or f"{self.service}/{self.node}"


def find(provisioner_of: MakeProvisioner = rented) -> list[Orphan]:
    """Ask the provider for every uid that ever was ours. Raises DisagctlError when it cannot be asked."""
    return [orphan for known in known_uids() for orphan in _of(known, provisioner_of(known.name, known.uid))]


def kill(found: Sequence[Orphan], say: Callable[[str], None], provisioner_of: MakeProvisioner = rented) -> None:
    """End them, and see that they are gone. Raises TeardownError naming those that stay."""
    left: list[str] = []
    for service, uid in dict.fromkeys((orphan.service, orphan.uid) for orphan in found):
        mine = [orphan for orphan in found if orphan.uid == uid]
        try:
            stay = asyncio.run(release_all(provisioner_of(service, uid), [o.handle for o in mine], say, strays=False))
        except DisagctlError as err:
            say(f"{NO_PROVIDER}: {err}")
            stay = [orphan.handle for orphan in mine]
        names = {orphan.handle.node: orphan for orphan in mine}
        left += [f"{names[h.node].name} (${names[h.node].usd_per_hour or 0:.2f}/h)" for h in stay if h.node in names]
    if left:
        raise TeardownError(f"{', '.join(left)} may still run and bill", next="disagctl gc -y tries again")


def _of(known: KnownUid, provisioner: Provisioner) -> list[Orphan]:
    covered = _covered(known.uid)
    return [
        Orphan(
            known.name, known.uid, handle.node, handle.provider_id, str(handle.offer or ""),
            handle.offer.usd_per_hour if handle.offer is not None else None, handle,
        )
        for handle in asyncio.run(provisioner.list([]))
        if not nothing_left(handle) and handle.intent not in covered
    ]  # fmt: skip


def _covered(uid: str) -> set[str]:
    """Intents that a live row stands for: the head, ``down``, or a running ``profile`` will see to them."""
    records = [(where, record) for where in services() if (record := read_record(where)).uid == uid]
    heads = {record.head.intent for _, record in records if record.head is not None}
    return heads | profiling(uid) | {row.intent for where, _ in records for row in open_nodes(where.store)}
