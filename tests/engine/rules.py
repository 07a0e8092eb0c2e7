"""What has to hold of a ledger between any two events, and of what agents are told."""

from collections.abc import Collection
from itertools import combinations

from planner.domain import Role
from planner.run.ledger import Ledger
from stages.protocol import Wishes


def check_book(book: Ledger) -> None:
    """Every request is in exactly one place, and both ends of every lease and output agree."""
    _check_requests(book)
    _check_workers(book)


def _check_requests(book: Ledger) -> None:
    for request in book.requests.values():
        waiting = [role for role, line in book._waiting.items() if request.id in line]
        held = request.id in book._on_hold and request.lease is None and request.publishing is None
        places = [bool(waiting), request.lease is not None, request.publishing is not None, held]
        assert sum(places) == 1, f"{request.id} is in {sum(places)} places: {places}"
        assert not waiting or waiting == [request.role], f"{request.id} waits for {waiting}, at {request.role}"
        if waiting:
            assert request.ready, f"{request.id} waits for {request.role} without an input"
        if request.lease is not None:
            worker = book.workers.get(request.lease.worker)
            assert worker is not None, f"{request.id} is leased to {request.lease.worker}, which is gone"
            assert worker.leases.get(request.id) == request.lease.ref.epoch
            assert worker.role == request.role
        if (snapshot := request.snapshot) is not None:
            assert request.publishing is None
            assert request.stages.index(snapshot.ref.stage) >= request.at, f"{request.id} is past its snapshot"
            holder = book.workers.get(snapshot.worker)
            assert holder is not None, f"{request.id}: {snapshot.ref.key} is held by {snapshot.worker}, which is gone"
            assert holder.outputs.get(snapshot.ref.key) == request.id
        for index, output in request.outputs.items():
            assert output.ref.stage == request.stages[index]
            holder = book.workers.get(output.worker)
            if request.publishing is None:
                assert holder is not None, f"{request.id}: {output.ref.key} is held by {output.worker}, which is gone"
                assert holder.outputs.get(output.ref.key) == request.id
        assert len(request.evidence) < book.limits.max_attempts
        assert request.losses <= book.limits.max_losses


def _check_workers(book: Ledger) -> None:
    slots: dict[Role, int] = {}
    for worker in book.workers.values():
        slots[worker.role] = slots.get(worker.role, 0) + worker.slots
        for request_id, epoch in worker.leases.items():
            lease = book.requests[request_id].lease
            assert lease is not None
            assert (lease.worker, lease.ref.epoch) == (worker.id, epoch)
        for key, request_id in worker.outputs.items():
            request = book.requests.get(request_id)
            assert request is not None, f"{worker.id} is taken to hold {key} of an ended request"
            wanted = [*request.outputs.values(), *([request.snapshot] if request.snapshot is not None else [])]
            assert any(o.ref.key == key for o in wanted), f"{worker.id} holds {key}, which nobody wants"
    for role, pool in book._pools.items():
        assert pool.total_slots == slots.get(role, 0), f"{role}: {pool.total_slots} slots on the books"


def at_rest(book: Ledger) -> None:
    """Nothing is left of all the requests."""
    assert not book.requests
    assert not book._on_hold
    assert all(len(line) == 0 for line in book._waiting.values())
    for worker in book.workers.values():
        assert not worker.leases, f"{worker.id} still has leases"
        assert not worker.outputs, f"{worker.id} still holds outputs"


def check_wishes(told: Wishes, planned: Collection[str], there: Collection[str]) -> None:
    """Whoever has several GPUs shares them with nobody who has several. None is to begin beside one who is still to leave."""
    for one, other in combinations(told.workers, 2):
        wide = (len(one.gpus) > 1) + (len(other.gpus) > 1)
        if wide and not set(one.gpus).isdisjoint(other.gpus):
            both = {one.slot, other.slot}
            fair = wide == 1 if both <= set(planned) else both <= set(there)
            assert fair, f"{one.slot} beside {other.slot}, planned are {planned}"
