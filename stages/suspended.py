"""Tasks that were paused on this worker: their jobs, for a quick way back, and how much their snapshots may take.

A snapshot is in the host's memory, held as any output is, and good for every worker of the stage. The job itself, with its
tensors on the device, is kept beside it while there is room, so that resuming here costs no transfer.
"""

from collections import OrderedDict
from typing import Final

from stages.models.base import Job, Suspendable
from stages.parcel import Parcel, ParcelError

MOST_JOBS: Final = 2  # kept on the device; the one paused longest gives way, and resumes from its snapshot
DEVICE_BYTES: Final = 1 << 30  # in all, of those jobs, which have about as much there as their snapshots hold
SNAPSHOT_BYTES: Final = 4 << 30  # in all, of snapshots held by one worker


class Suspended:
    """``put`` and ``take`` are the compute thread's; ``forget`` is any thread's."""

    def __init__(
        self, limit_bytes: int = SNAPSHOT_BYTES, most_jobs: int = MOST_JOBS, device_bytes: int = DEVICE_BYTES
    ) -> None:
        self._limit, self._most, self._device = limit_bytes, most_jobs, device_bytes
        self._sizes: dict[str, int] = {}
        self._jobs: OrderedDict[str, Suspendable] = OrderedDict()

    def fitting(self, snapshot: Parcel) -> Parcel:
        """The snapshot. Raises ParcelError where it cannot be held beside the others."""
        held = sum(tuple(self._sizes.values()))
        if held + snapshot.nbytes > self._limit:
            msg = f"its snapshot of {snapshot.nbytes} bytes and the {held} held are more than the {self._limit} allowed"
            raise ParcelError(msg)
        return snapshot

    def put(self, key: str, snapshot: Parcel, job: object) -> None:
        """The snapshot is to be held; keep the job if it can wait."""
        self._sizes[key] = snapshot.nbytes
        if not isinstance(job, Suspendable):
            return
        job.suspend()
        self._jobs[key] = job
        for oldest in tuple(self._jobs):
            if len(self._jobs) <= self._most and self._kept() <= self._device:
                break
            self._jobs.pop(oldest, None)

    def take(self, key: str) -> Job | None:
        """The job, ready to go on; None: it is not kept."""
        job = self._jobs.pop(key, None)
        if job is not None:
            job.revive()
        return job

    def forget(self, key: str) -> None:
        """The snapshot is no longer held. Unknown keys are ignored."""
        self._sizes.pop(key, None)
        self._jobs.pop(key, None)

    def _kept(self) -> int:
        return sum(self._sizes.get(key, 0) for key in tuple(self._jobs))

    def unload(self) -> None:
        """The model goes, and with it what is on its device."""
        self._jobs.clear()
