"""The control loop: what it is shown, and how it carries out what the policy says. The policy here does as it is told."""

import asyncio
import math
import threading
from collections.abc import Callable, Sequence

import pytest

from disagctl.controller import Controller, OneMachine, decode_counts, encode_counts, memory_of
from disagctl.errors import UnexpectedError
from disagctl.load_watch import LoadWatch
from planner.domain import Offer, Role, Shape, Workload
from planner.run.book import Request
from planner.run.config import PolicyConfig, RoleBounds
from planner.run.decisions import Decision, Reason, SetCounts, Solve, WishNodes
from planner.run.fleet import NodeWish
from planner.run.observe import Observation, Planned
from planner.run.policy import Policy
from stages import protocol as wire
from tests.engine.bench import DECODE, DENOISE, ENCODE, Bench

WHY = Reason("change", "the work has changed", {"cover": 0.5})
SHAPE = Shape(64, 64, 1, 4)


class Script(Policy):
    """Says what it is told to; remembers what it saw."""

    def __init__(self, roles: Sequence[Role]) -> None:
        super().__init__(PolicyConfig(tuple(RoleBounds(role) for role in roles)), lambda *_: 1.0)
        self.seen: list[Observation] = []
        self.script: list[Decision] = []

    def decide(self, seen: Observation, now: float) -> tuple[Decision, ...]:
        self.seen.append(seen)
        said, self.script = self.script, []
        return tuple(said)


class Loop:
    """A controller on a bench."""

    def __init__(self, places: int = 4, ask: Callable[[Solve], Planned] | None = None) -> None:
        self.bench = Bench(wanted={ENCODE: 1, DENOISE: 2, DECODE: 1})
        self.watch = LoadWatch(self.bench.engine, lambda _model, _shape: 10.0)
        self.bench.engine.watcher = self.watch
        self.fleet = self.bench.fleet()
        self.policy, self.stored, self.said = Script((ENCODE, DENOISE, DECODE)), dict[str, str](), list[str]()
        self.nodes = Rented(places)
        self.controller = Controller(
            self.watch, self.policy, self.nodes, lambda kind, why: self.said.append(f"{kind}: {why}"), self.save, ask
        )

    async def save(self, key: str, value: str) -> None:
        self.stored[key] = value

    async def tick(self, *decisions: Decision) -> Observation:
        self.policy.script += decisions
        self.controller.tick()
        for _ in range(5):
            await asyncio.sleep(0)
        return self.policy.seen[-1]

    def request(self, name: str, stages: tuple[str, ...] = ("denoise",)) -> Request:
        request = Request(name, "m", stages, b"{}", 0, self.bench.now, shape=SHAPE)
        self.watch.arrived(request, self.bench.now)
        self.bench.ledger.submit(request)
        self.bench.engine.act()
        return request


class Rented(OneMachine):
    """Takes note of wishes."""

    wished: tuple[NodeWish, ...] = ()

    async def wish(self, wishes: Sequence[NodeWish], why: str) -> None:
        self.wished = tuple(wishes)


async def test_counts_are_carried_out_told_and_stored() -> None:
    loop = Loop()
    counts = {ENCODE: 1, DENOISE: 1, DECODE: 2}
    await loop.tick(SetCounts(counts, WHY))
    assert loop.bench.roster.wanted == counts
    assert loop.said == ["scale: denoise 2→1, decode 1→2: the work has changed (cover 0.5)"]
    assert decode_counts(loop.stored["counts"]) == counts
    assert [w.role for w in loop.bench.roster.workers.values() if w.phase == "switching"] == [DECODE]
    await loop.tick(SetCounts(counts, WHY))
    assert len(loop.said) == 1, "said once"
    assert loop.controller.view().decisions == {"change": 2}


async def test_what_a_person_has_pinned_stays() -> None:
    loop = Loop()
    loop.controller.pins = {DENOISE: 2}
    seen = await loop.tick(SetCounts({ENCODE: 1, DENOISE: 1, DECODE: 2}, WHY))
    assert seen.pinned == {DENOISE: 2}
    assert loop.bench.roster.wanted[DENOISE] == 2


async def test_a_pin_beyond_the_room_makes_room() -> None:
    loop = Loop(places=4)
    assert [room.up for room in (await loop.tick()).rooms] == [4]
    loop.controller.pins = {DENOISE: 7}
    assert [room.up for room in (await loop.tick()).rooms] == [9]


async def test_types_of_gpus_become_shares() -> None:
    loop = Loop()
    counts = {ENCODE: 1, DENOISE: 2, DECODE: 1}
    await loop.tick(SetCounts(counts, WHY, {"": {ENCODE: 1, DENOISE: 2, DECODE: 1}}))
    assert loop.bench.roster.shares == {(role, ""): count for role, count in counts.items()}


async def test_the_planner_is_asked_aside_and_its_answer_is_seen_later() -> None:
    threads: list[threading.Thread] = []

    def ask(question: Solve) -> Planned:
        threads.append(threading.current_thread())
        return Planned(question.id, error="none")

    loop = Loop(ask=ask)
    await loop.tick(Solve(7, Workload(()), WHY))
    await asyncio.gather(*loop.controller._tasks)
    assert (await loop.tick()).planned == Planned(7, error="none")
    assert threads[0] is not threading.main_thread()


async def test_a_solver_that_fails_is_told_and_asked_again() -> None:
    def ask(question: Solve) -> Planned:
        raise UnexpectedError("the solver died")

    loop = Loop(ask=ask)
    for number in (1, 2):
        await loop.tick(Solve(number, Workload(()), WHY))
        await asyncio.gather(*loop.controller._tasks)
        planned = (await loop.tick()).planned
        assert planned is not None
        assert (planned.id, "the solver died" in planned.error) == (number, True)
    assert [said.partition(":")[0] for said in loop.said] == ["plan", "plan_failed"] * 2


async def test_nodes_are_wished_for_with_the_reason() -> None:
    loop = Loop()
    wish = NodeWish("h100", (Offer("aws", "r", "p5", "H100", 8, False, 40.0),), 2)
    await loop.tick(WishNodes((wish,), WHY))
    assert loop.nodes.wished == (wish,)
    assert loop.said == ["nodes: 2 of h100: the work has changed (cover 0.5)"]


async def test_what_was_learnt_is_stored_at_the_end() -> None:
    loop = Loop()
    await loop.controller.close()
    assert memory_of(loop.stored["policy"]) == loop.policy.memory()
    assert memory_of("") is memory_of("not base64!") is None


# --- what it sees ---


async def test_workers_and_work_are_counted_by_role() -> None:
    loop = Loop()
    ref = None
    for number in range(9):
        request = loop.request(f"r{number}")
        ref = ref or (request.lease.ref if request.lease else None)
    assert ref is not None
    worker = loop.bench.holder(ref.request)
    assert worker is not None
    loop.bench.hear(worker, wire.Started(ref))
    states = {state.role: state for state in (await loop.tick()).roles}
    assert (states[DENOISE].ready, states[DENOISE].computing) == (2, 1)
    assert (states[DENOISE].queued, states[DENOISE].running) == (3, 6)
    assert (states[ENCODE].ready, states[ENCODE].coming) == (1, 0)


async def test_one_that_switches_leaves_one_role_and_comes_to_another() -> None:
    loop = Loop()
    for name in "ab":
        loop.request(name)
    await loop.tick(SetCounts({ENCODE: 1, DENOISE: 1, DECODE: 2}, WHY))
    states = {state.role: state for state in (await loop.tick()).roles}
    assert (states[DENOISE].ready, states[DENOISE].draining, states[DENOISE].coming) == (1, 1, 0)
    assert (states[DECODE].ready, states[DECODE].coming, states[DECODE].wanted) == (1, 1, 2)


async def test_a_switch_tells_how_long_it_took() -> None:
    loop = Loop()
    await loop.tick()
    await loop.tick(SetCounts({ENCODE: 1, DENOISE: 1, DECODE: 2}, WHY))
    (worker,) = [w.id for w in loop.bench.roster.workers.values() if w.phase == "switching"]
    loop.bench.now += 5.0
    loop.bench.hear(worker, wire.RoleReady(DECODE, 2.0, warm=True))
    told = [(lapse.kind, lapse.role, lapse.seconds, lapse.warm) for lapse in (await loop.tick()).lapses]
    assert told == [("load", DECODE, 2.0, True), ("drain", DENOISE, 3.0, False)]
    assert loop.controller.view().switches == 1
    assert list(loop.watch.times[DECODE].switch_s) == [5.0]


async def test_how_busy_each_worker_is() -> None:
    loop = Loop()
    await loop.tick()
    request = loop.request("a")
    assert request.lease is not None
    ref, worker = request.lease.ref, request.lease.worker
    loop.bench.hear(worker, wire.Started(ref))
    for _ in range(4):
        loop.bench.now += 5.0
        await loop.tick()
    assert loop.watch.worker_utilisation(worker) == 1.0
    loop.bench.hear(worker, wire.Done(ref, 20.0, artifact=wire.Artifact("image/png", 1, 0)))
    for _ in range(24):
        loop.bench.now += 5.0
        await loop.tick()
    share = loop.watch.worker_utilisation(worker)
    assert share is not None
    assert 0.05 < share < 0.25
    others = [w for w in loop.bench.roster.workers if w != worker]
    assert {loop.watch.worker_utilisation(other) for other in others} == {0.0}


async def test_requests_are_told_by_shape() -> None:
    loop = Loop()
    request = loop.request("a")
    assert request.lease is not None
    ref, worker = request.lease.ref, request.lease.worker
    loop.bench.hear(worker, wire.Started(ref))
    loop.bench.now += 3.0
    loop.bench.hear(worker, wire.Done(ref, 3.0, artifact=wire.Artifact("image/png", 1, 0), fetch_s=0.5))
    loop.watch.finished(request, 3.5, loop.bench.now)
    seen = await loop.tick()
    assert [(a.model, a.shape) for a in seen.arrivals] == [("m", SHAPE)]
    assert [(a.role, a.shape) for a in seen.assigned] == [(DENOISE, SHAPE)]
    assert [(c.role, c.log_s == math.log(3.0), c.first) for c in seen.completions] == [(DENOISE, True, True)]
    assert [f.latency_s for f in seen.finished] == [3.5]
    assert list(loop.watch.times[DENOISE].fetch_s) == [0.5]


async def test_utilisation_counts_what_is_still_being_computed() -> None:
    loop = Loop()
    await loop.tick()
    request = loop.request("a")
    assert request.lease is not None
    loop.bench.hear(request.lease.worker, wire.Started(request.lease.ref))
    loop.bench.now += 10.0
    assert loop.watch.utilisation(DENOISE, loop.bench.now) == pytest.approx(0.5)  # one of two workers
    assert loop.watch.utilisation(DECODE, loop.bench.now) == 0.0
    loop.watch.idle(request.lease.worker)
    assert loop.watch.utilisation(DENOISE, loop.bench.now) == 0.0


async def test_attainment_is_of_the_models_objective() -> None:
    loop = Loop()
    assert loop.watch.attainment("m") is None
    request = loop.request("a")
    request.due_s = loop.watch.due_s("m", request.shape, request.submitted_s)
    for latency_s in (1.0, 9.0, 11.0, 2.0):
        loop.watch.finished(request, latency_s, request.submitted_s + latency_s)
    assert loop.watch.attainment("m") == 0.75
    [kept] = loop.watch.classes.values()
    assert (kept.finished, list(kept.in_time)) == (4, [True, True, False, True])


def test_counts_survive_as_text() -> None:
    counts = {ENCODE: 1, Role("a.b", "denoise"): 4}
    assert decode_counts(encode_counts(counts)) == counts
    assert decode_counts("") == {}
