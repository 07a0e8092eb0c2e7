"""Rows of machines rented to profile on: written before a machine is asked for, so that ``gc`` knows whose it is.

One file a run, below the state directory; it says which process looks after the machines. When that is gone, they are orphans.
"""

import os
from pathlib import Path

import msgspec
import psutil

from disagctl.provision.local import alive
from disagctl.state import home, write_private
from disagctl.uids import KnownUid, remember
from planner.domain import Offer


class Rental(msgspec.Struct):
    """One machine. Seconds since the epoch; ``ended_at`` None: it may still bill."""

    node: str
    intent: str
    offer: Offer
    asked_at: float
    ended_at: float | None = None

    def usd(self, now: float) -> float:
        """What it cost, counted from the asking: never less than what is billed."""
        return self.offer.usd_per_hour * ((self.ended_at or now) - self.asked_at) / 3600


class Lease(msgspec.Struct):
    """All machines of one run, and the process that looks after them."""

    uid: str
    pid: int
    pid_created: float
    rentals: list[Rental] = []

    def save(self) -> None:
        """Durably, before what it says is done."""
        write_private(_folder() / f"{self.uid}.json", msgspec.json.encode(self))


def open_lease(uid: str, now: float) -> Lease:
    """A new one; its uid is known to ``gc`` from here on."""
    remember(KnownUid(uid, "profile", now))
    lease = Lease(uid, os.getpid(), psutil.Process().create_time())
    lease.save()
    return lease


def covered(uid: str) -> set[str]:
    """Intents of machines that a living run looks after."""
    try:
        lease = msgspec.json.decode((_folder() / f"{uid}.json").read_bytes(), type=Lease)
    except (OSError, msgspec.DecodeError):
        return set()
    if not alive(lease.pid, lease.pid_created):
        return set()
    return {rental.intent for rental in lease.rentals if rental.ended_at is None}


def _folder() -> Path:
    folder = home() / "profiling"
    folder.mkdir(mode=0o700, exist_ok=True)
    return folder
