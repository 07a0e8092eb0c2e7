"""A ledger on a bench: events in, effects out, with short names for what tests do all the time."""

from collections.abc import Sequence
from typing import Any, TypeVar

from planner.domain import Role, TaskRef
from planner.run import effects as fx
from planner.run.book import Limits, Request
from planner.run.ledger import Ledger
from tests.engine.rules import check_book

STAGES = ("encode", "denoise", "decode")
ENCODE, DENOISE, DECODE = (Role("m", stage) for stage in STAGES)

E = TypeVar("E")


class Lab:
    """``now`` moves only when told. After every collection of effects the book is checked."""

    def __init__(self, limits: Limits | None = None, *, stages: tuple[str, ...] = STAGES, incarnation: int = 1) -> None:
        self.ledger = Ledger(incarnation, limits)
        self.stages = stages
        self.now = 0.0
        self.out: list[fx.Effect] = []
        self.ledger.tick(self.now)

    # --- what tests say ---

    def request(self, name: str, priority: int = 0) -> Request:
        return Request(name, "m", self.stages, b"{}", 0, self.now, priority=priority)

    def submit(self, *names: str, priority: int = 0) -> None:
        for name in names:
            self.ledger.submit(self.request(name, priority))
        self.act()

    def worker(self, name: str, role: Role, prefetch: int = 0) -> None:
        self.ledger.worker_ready(name, role, prefetch, self.now)
        self.act()

    def trio(self, prefetch: int = 0) -> None:
        for name, role in (("e", ENCODE), ("n", DENOISE), ("c", DECODE)):
            self.worker(name, role, prefetch)

    def act(self) -> list[fx.Effect]:
        new = self.ledger.effects(self.now)
        self.out += new
        check_book(self.ledger)
        return new

    def take(self, kind: type[E]) -> list[E]:
        """Effects of this kind since the last look; the others stay."""
        found: list[E] = [effect for effect in self.out if isinstance(effect, kind)]
        self.out = [effect for effect in self.out if not isinstance(effect, kind)]
        return found

    def ref(self, request: str) -> TaskRef:
        """The present lease of a request."""
        lease = self.ledger.requests[request].lease
        assert lease is not None, f"{request} is not with a worker"
        return lease.ref

    def holder(self, request: str) -> str | None:
        lease = self.ledger.requests[request].lease
        return lease.worker if lease else None

    def start(self, request: str) -> TaskRef:
        ref, worker = self.ref(request), self.holder(request)
        assert worker is not None
        self.ledger.started(worker, ref, self.now)
        self.act()
        return ref

    def done(self, request: str, result: Any = None) -> TaskRef:
        """The worker that has it computes it and says so."""
        ref, worker = self.start(request), self.holder(request)
        assert worker is not None
        assert self.ledger.done(worker, ref, result or f"<{ref.key}>", 0.1)
        self.act()
        return ref

    def fail(self, request: str, *, retry: bool = True, code: str = "RuntimeError") -> None:
        ref, worker = self.start(request), self.holder(request)
        assert worker is not None
        self.ledger.failed(worker, ref, code, "it broke", retry=retry)
        self.act()

    def lose(self, worker: str) -> None:
        self.ledger.worker_lost(worker, "it is gone")
        self.act()

    def resync(
        self, worker: str, tasks: Sequence[tuple[TaskRef, bool]] = (), outputs: Sequence[tuple[TaskRef, Any]] = ()
    ) -> None:
        self.ledger.resync(worker, tasks, outputs, self.now)
        self.act()

    def pass_time(self, seconds: float, *, alive: Sequence[str] = ()) -> None:
        """Ticks as the head does, with signs of life of these workers."""
        end = self.now + seconds
        while self.now < end - 1e-9:
            self.now += 0.25
            for worker in alive:
                self.ledger.seen(worker, self.now)
            self.ledger.tick(self.now)
            self.act()
