"""Several roles on one rented GPU: the dispatch policy orders them, and the head starts, changes and ends processes there."""

import asyncio

import pytest
from msgspec.structs import replace

from disagctl.controller import Controller, OneMachine, decode_counts, decode_seating
from disagctl.dispatching import dispatch_policy
from disagctl.engine import ROLE_RETRY_S
from disagctl.load_watch import LoadWatch
from disagctl.roster import Rented
from planner.domain import Role, Shape
from planner.run.book import Request
from planner.run.config import PolicyConfig, RoleBounds
from planner.run.observe import Room
from planner.run.orders import DispatchConfig, Load, Order, View
from planner.run.policy import Policy
from planner.run.seating import Fits, Seating
from stages import protocol as wire
from tests.engine.bench import DECODE, DENOISE, ENCODE, SOURCE, Bench

ROLES = (ENCODE, DENOISE, DECODE)
SHAPE = Shape(64, 64, 1, 4)
LONG_S, LOAD_S = 60.0, 2.0
FITS: Fits = {"H100": frozenset({*((role,) for role in ROLES), (ENCODE, DECODE), (DENOISE, DECODE)})}
PLANNED = Seating({"H100": {ENCODE: 1, DENOISE: 2, DECODE: 1}})
FIRST = {"gpu0": ENCODE, "gpu1": DENOISE, "gpu2": DECODE, "gpu3": DENOISE}


class Machines(OneMachine):
    """Four GPUs, rented."""

    def rooms(self) -> tuple[Room, ...]:
        return (Room("H100", 4),)


class Service:
    """Head and four workers, one a GPU. ``order`` is carried out as if ``trident`` gave it; with ``auto`` it gives its own."""

    def __init__(self, seating: Seating = PLANNED, auto: bool = False) -> None:
        self.bench = Bench(wanted=seating.counts)
        roster, engine = self.bench.roster, self.bench.engine
        roster.rented["n1"], roster.by_actual = Rented("H100", 4, "H100"), True
        roster.shares = {(role, gpu): n for gpu, roles in seating.workers.items() for role, n in roles.items()}
        roster.bundles = {(some, gpu): n for gpu, bundles in seating.shared.items() for some, n in bundles.items()}
        config = PolicyConfig(
            tuple(map(RoleBounds, ROLES)), load_s=dict.fromkeys(ROLES, LOAD_S), placed=True, fits=FITS, seating=seating
        )
        watch = LoadWatch(engine, lambda _model, _shape: None)
        self.policy = Policy(config, lambda *_: LONG_S)
        self.stored, self.said = dict[str, str](), list[str]()
        self.controller = Controller(
            watch, self.policy, Machines(4), lambda kind, why: self.said.append(f"{kind}: {why}"), self.save
        )
        self.controller.plan = "p"
        engine.watcher, engine.ask = watch, self.controller.ask
        self.bench.ledger.cards = self.controller.placing.cards
        served = dispatch_policy(DispatchConfig("trident"), engine, self.policy)
        assert served is not None
        self._auto = served[1] if auto else None
        self.bench.ledger.serve_by((served[0], self))

    def decide(self, view: View, now: float) -> list[Order]:
        return self._auto.decide(view, now) if self._auto is not None else []

    async def save(self, key: str, value: str) -> None:
        self.stored[key] = value

    async def up(self) -> None:
        """As the plan says: one node, a ready worker in every place."""
        self.bench.fleet()
        await self.tick()

    async def settle(self) -> None:
        for _ in range(5):
            await asyncio.sleep(0)

    async def tick(self, seconds: float = 0.25) -> None:
        self.bench.now += seconds
        self.bench.agent(*self.bench.roster.workers)
        self.bench.engine.tick()
        self.controller.tick()
        await self.settle()

    async def order(self, slot: str, role: Role, *drop: Role) -> None:
        self.bench.ledger.obey(Load(f"n1.{slot}.1", role, drop, "wanted"), self.bench.now)
        self.bench.engine.act()
        await self.settle()

    async def rest(self) -> None:
        """Until the next move may be."""
        while self.policy.view(self.bench.now).cooldown_s:
            await self.tick(self.policy.view(self.bench.now).cooldown_s)

    async def starts(self, slot: str, role: Role) -> str:
        """The agent starts what is wished for: it says Hello, and is told what to load, and has loaded it."""
        worker = f"n1.{slot}.1"
        self.bench.agent(*self.bench.roster.workers, worker)
        self.bench.hear(worker, wire.Hello(wire.PROTOCOL_VERSION, worker, "n1", 1))
        given = [message.role for message in self.bench.sent[worker] if isinstance(message, wire.SetRole)]
        assert given == [role]
        self.bench.hear(worker, wire.RoleReady(role, LOAD_S))
        await self.settle()
        return worker

    @property
    def wished(self) -> dict[str, Role]:
        return {plan.slot: plan.role for plan in self.bench.roster.plans}

    @property
    def placed(self) -> list[str]:
        return [one.removeprefix("placement: ") for one in self.said if one.startswith("placement")]


async def test_a_stage_that_waits_gets_a_worker_beside_another() -> None:
    service = Service(auto=True)
    await service.up()
    assert service.wished == FIRST
    for name in ("a", "b"):
        service.bench.ledger.submit(Request(name, "m", ("decode",), b"{}", 0, service.bench.now, shape=SHAPE))
        service.bench.engine.act()
        await service.settle()
    assert service.wished == FIRST | {"gpu0-1": DECODE}
    assert [wish.slot for wish in service.bench.wished()] == ["gpu0", "gpu0-1", "gpu1", "gpu2", "gpu3"]
    assert service.placed == ["n1.gpu0-1: m.decode beside m.encode: a stage waits for it"]
    assert all(worker.phase == "ready" for worker in service.bench.roster.workers.values()), "nobody changes for it"
    assert service.bench.holder("b") is None
    started = await service.starts("gpu0-1", DECODE)
    assert service.bench.holder("b") == started
    assert decode_counts(service.stored["counts"]) == {ENCODE: 1, DENOISE: 2, DECODE: 2}
    seating = Seating({"H100": {DENOISE: 2, DECODE: 1}}, {"H100": {(ENCODE, DECODE): 1}})
    assert decode_seating(service.stored["seating"], "p") == seating, "a later head finds it so"


async def test_a_view_shows_gpus_and_what_may_come_beside() -> None:
    service = Service()
    await service.up()
    cards = {one.worker: one.card for one in service.bench.ledger.view().instances}
    denoiser = cards["n1.gpu3.1"]
    assert denoiser is not None
    assert denoiser.name == "n1.gpu3"
    assert denoiser.roles == denoiser.loose == {DENOISE}
    assert denoiser.open_to == {ENCODE, DECODE}
    assert denoiser.holds(frozenset({DENOISE, DECODE}))
    assert not denoiser.holds(frozenset({DENOISE, ENCODE}))
    await service.order("gpu3", DECODE)
    (coming,) = [one.card for one in service.bench.ledger.view().instances if one.card and one.card.name == "n1.gpu3"]
    assert coming.roles == {DENOISE, DECODE}
    assert coming.coming == {DECODE}
    assert not coming.open_to
    await service.starts("gpu3-1", DECODE)
    both = [one.card for one in service.bench.ledger.view().instances if one.worker.startswith("n1.gpu3")]
    assert len(both) == 2
    assert both[0] is not None
    assert both[0] == both[1], "one GPU"
    assert both[0].roles == both[0].loose == {DENOISE, DECODE}
    assert not both[0].coming


async def test_who_has_several_gpus_of_its_own_is_left_to_the_plan() -> None:
    service = Service()
    await service.up()
    service.bench.engine.sources[DENOISE] = replace(SOURCE, ranks=2)
    cards = service.controller.placing.cards()
    assert not cards["n1.gpu1.1"].open_to
    assert not cards["n1.gpu1.1"].loose
    assert cards["n1.gpu2.1"].open_to == {ENCODE}, "and no such worker is put beside another"


async def test_one_of_two_changes_its_role_and_the_other_goes_on() -> None:
    service = Service(Seating({"H100": {ENCODE: 1, DENOISE: 1, DECODE: 1}}, {"H100": {(DENOISE, DECODE): 1}}))
    await service.up()
    pair = next(slot for slot in service.wished if slot.endswith("-1")).removesuffix("-1")
    before = service.wished
    other = next(slot for slot in (pair, f"{pair}-1") if before[slot] == DENOISE)
    decoder = next(slot for slot in (pair, f"{pair}-1") if before[slot] == DECODE)
    await service.order(other, ENCODE, DECODE)
    assert service.placed == [], "the spec has no encoder beside a denoiser"
    await service.order(decoder, ENCODE, DENOISE)  # by its neighbour's name
    assert service.wished == before | {other: ENCODE}
    assert [worker.slot for worker in service.bench.roster.workers.values() if worker.phase == "switching"] == [other]
    assert service.bench.ledger.takes(f"n1.{decoder}.1") == DECODE
    assert not service.bench.roster.draining


@pytest.mark.parametrize("fatal", [False, True])
async def test_who_cannot_load_beside_others_ends_and_is_not_put_there_again(fatal: bool) -> None:
    service = Service()
    await service.up()
    await service.order("gpu3", DECODE)
    worker = "n1.gpu3-1.1"
    service.bench.agent(*service.bench.roster.workers, worker)
    service.bench.hear(worker, wire.Hello(wire.PROTOCOL_VERSION, worker, "n1", 1))
    service.bench.hear(worker, wire.RoleFailed(DECODE, "out of memory", fatal))
    await service.tick()
    assert service.placed[1:] == [f"{worker} ends: {DECODE} does not come up beside the others: out of memory"]
    assert service.wished == FIRST
    assert service.bench.roster.wanted[DECODE] == 1
    await service.tick(ROLE_RETRY_S + 1)
    await service.rest()
    assert sum(isinstance(one, wire.SetRole) for one in service.bench.sent[worker]) == 1, "it is not told to try again"
    service.bench.hear(worker, wire.Drained())
    service.bench.hear("n1", wire.AgentBeat(1, (wire.WorkerVitals(worker, "gpu3-1", 1, "exited", 0),)))
    await service.order("gpu1", DECODE)
    assert len(service.placed) == 2, "on no such GPU"
    await service.order("gpu0", DECODE)
    assert service.placed[2:] == ["n1.gpu0-1: m.decode beside m.encode: wanted"]
    await service.starts("gpu0-1", DECODE)
    await service.tick()
    assert service.controller.placing._ordered == {}


async def test_who_makes_room_ends_first_and_only_then_the_other_changes() -> None:
    service = Service(Seating({"H100": {ENCODE: 1, DENOISE: 1, DECODE: 1}}, {"H100": {(DENOISE, DECODE): 1}}))
    await service.up()
    before, roster = service.wished, service.bench.roster
    pair = next(slot for slot in before if slot.endswith("-1")).removesuffix("-1")
    (goes,) = [slot for slot in (pair, f"{pair}-1") if before[slot] == DECODE]
    (stays,) = {pair, f"{pair}-1"} - {goes}
    await service.order(stays, ENCODE, DENOISE, DECODE)
    assert set(roster.draining) == {f"n1.{goes}.1"}
    assert service.wished == {slot: role for slot, role in before.items() if slot != goes}
    assert service.placed == [f"n1.{goes}.1 makes room for m.encode: wanted"]
    await service.rest()
    await service.order(stays, ENCODE, DENOISE)
    assert len(service.placed) == 1, "it has not ended yet: both would not fit"
    service.bench.hear(f"n1.{goes}.1", wire.Drained())
    assert [wish.slot for wish in service.bench.wished()] == sorted(service.wished)
    service.bench.hear("n1", wire.AgentBeat(1, (wire.WorkerVitals(f"n1.{goes}.1", goes, 1, "exited", 0),)))
    await service.order(stays, ENCODE, DENOISE)
    assert service.placed[1:] == [f"n1.{stays}.1: m.encode instead of m.denoise: wanted"]
    assert service.wished[stays] == ENCODE


@pytest.mark.parametrize("drop", [(), (DECODE,)], ids=["beside", "instead"])
async def test_what_does_not_fit_or_would_leave_nobody_is_not_done(drop: tuple[Role, ...]) -> None:
    service = Service()
    await service.up()
    await service.order("gpu0", DENOISE, *drop)
    await service.order("gpu2", DENOISE, *drop)
    expected = ["n1.gpu2-1: m.denoise beside m.decode: wanted"] if not drop else []
    assert service.placed == expected
    assert service.bench.roster.wanted[DECODE] == 1


async def test_a_new_head_goes_on_with_what_was_ordered() -> None:
    service = Service()
    await service.up()
    await service.order("gpu3", DECODE)
    await service.starts("gpu3-1", DECODE)
    seating = decode_seating(service.stored["seating"], "p")
    assert seating is not None
    later, has = Service(seating), service.wished
    assert later.bench.roster.wanted == decode_counts(service.stored["counts"])
    later.bench.engine.restart(2, ("n1",))
    later.bench.ledger.recover([], later.bench.now, 5.0)
    later.bench.agent(*(f"n1.{slot}.1" for slot in has), hello=True)
    for slot, role in has.items():
        later.bench.hear(f"n1.{slot}.1", wire.Hello(wire.PROTOCOL_VERSION, f"n1.{slot}.1", "n1", 1, role, "ready"))
    for _ in range(3):
        await later.tick()
    assert later.wished == has
    assert not later.bench.roster.draining
    assert later.said == []
    assert sorted(wish.slot for wish in later.bench.wished()) == sorted(has)
