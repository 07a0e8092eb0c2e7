"""The mix shifts, the dispatch policy orders weights moved, and the head has a worker change its role."""

import asyncio

import pytest

from disagctl.controller import Controller, OneMachine, decode_counts
from disagctl.dispatching import dispatch_policy
from disagctl.load_watch import LoadWatch
from planner.domain import Role, Shape
from planner.run.book import Request
from planner.run.config import PolicyConfig, RoleBounds
from planner.run.orders import Card, DispatchConfig, Load, Order, View
from planner.run.policy import Policy
from stages import protocol as wire
from tests.engine.bench import DECODE, DENOISE, ENCODE, Bench

SHAPE = Shape(64, 64, 1, 4)
LONG_S, LOAD_S = 60.0, 2.0


class Service:
    """Head and four workers, of which two denoise; ``trident`` decides, and what it orders is kept in ``ordered``."""

    def __init__(self) -> None:
        self.bench = Bench(wanted={ENCODE: 1, DENOISE: 2, DECODE: 1})
        engine, roles = self.bench.engine, tuple(self.bench.roster.wanted)
        bounds = tuple(RoleBounds(role) for role in roles)
        loop = Policy(PolicyConfig(bounds, load_s=dict.fromkeys(roles, LOAD_S), placed=True), lambda *_: LONG_S)
        watch = LoadWatch(engine, lambda _model, _shape: None)
        self.stored, self.said, self.ordered = dict[str, str](), list[str](), list[Load]()
        self.controller = Controller(
            watch, loop, OneMachine(4), lambda kind, why: self.said.append(f"{kind}: {why}"), self.save
        )
        engine.watcher, engine.ask = watch, self.controller.ask
        self.bench.ledger.cards = self.controller.placing.cards
        self.fleet = self.bench.fleet()
        served = dispatch_policy(DispatchConfig("trident"), engine, loop)
        assert served is not None
        config, self._policy = served
        self.bench.ledger.serve_by((config, self))

    def decide(self, view: View, now: float) -> list[Order]:
        orders = self._policy.decide(view, now)
        self.ordered += [order for order in orders if isinstance(order, Load)]
        return orders

    async def save(self, key: str, value: str) -> None:
        self.stored[key] = value

    async def settle(self) -> None:
        for _ in range(5):
            await asyncio.sleep(0)

    async def decodes(self, *names: str) -> None:
        """Requests that want nothing else."""
        for name in names:
            self.bench.ledger.submit(Request(name, "m", ("decode",), b"{}", 0, self.bench.now, shape=SHAPE))
            self.bench.engine.act()
        await self.settle()

    async def tick(self) -> None:
        self.bench.now += 0.25
        self.bench.agent(*[worker for some in self.fleet.values() for worker in some])
        self.bench.engine.tick()
        await self.settle()

    @property
    def switching(self) -> dict[str, Role | None]:
        return {w.id: w.role for w in self.bench.roster.workers.values() if w.phase == "switching"}


async def test_a_stage_that_waits_gets_an_idle_worker_of_another() -> None:
    service = Service()
    await service.decodes("a", "b")
    order = service.ordered[0]
    assert (order.role, order.drop, order.worker in service.fleet[DENOISE]) == (DECODE, (DENOISE,), True)
    assert service.switching == {order.worker: DECODE}
    given = [message for message in service.bench.sent[order.worker] if isinstance(message, wire.SetRole)]
    assert [message.role for message in given] == [DECODE]
    assert service.bench.roster.wanted == {ENCODE: 1, DENOISE: 1, DECODE: 2}
    assert decode_counts(service.stored["counts"]) == service.bench.roster.wanted, "a later head finds it so"
    assert service.said == [
        f"placement: {order.worker}: m.decode instead of m.denoise: {order.why}",
        f"scale: denoise 2→1, decode 1→2: {order.why}",
    ]
    assert service.bench.roster.workers[order.worker].why == order.why

    service.bench.hear(order.worker, wire.RoleReady(DECODE, LOAD_S))
    assert service.bench.holder("b") == order.worker


async def test_an_order_is_carried_out_once() -> None:
    service = Service()
    await service.decodes(*"abcdef")
    for _ in range(20):
        await service.tick()
    (worker,) = service.switching
    service.bench.ledger.obey(Load(worker, DECODE, (DENOISE,), "again"), service.bench.now)
    service.bench.engine.act()
    await service.settle()
    assert len(service.switching) == 1
    assert len(service.said) == 2


async def test_neither_the_last_of_a_role_nor_a_busy_one_is_taken() -> None:
    service = Service()
    await service.decodes("a", "b")
    (encoder,), (moved,) = service.fleet[ENCODE], service.switching
    service.bench.hear(moved, wire.RoleReady(DECODE, LOAD_S))
    service.bench.now += 1000.0
    for order in (
        Load(encoder, DECODE, (ENCODE,), "the last"),
        Load(moved, ENCODE, (DECODE,), "it computes"),
        Load("n1.none.1", DECODE, (DENOISE,), "it is gone"),
    ):
        service.bench.ledger.obey(order, service.bench.now)
    service.bench.engine.act()
    await service.settle()
    assert not service.switching


@pytest.mark.parametrize("held", [False, True], ids=["no role that it has", "as if it had room for both"])
async def test_an_order_that_does_not_suit_a_worker_of_one_role_is_dropped(held: bool) -> None:
    service = Service()
    worker = service.fleet[DENOISE][0]
    service.bench.ledger.obey(Load(worker, DECODE, () if held else (ENCODE,), "no"), service.bench.now)
    service.bench.engine.act()
    await service.settle()
    assert not service.switching


async def test_while_nodes_have_yet_to_report_nobody_is_moved() -> None:
    service = Service()
    service.bench.ledger.recover([], service.bench.now, 5.0)
    await service.decodes("a", "b")
    assert not service.switching
    service.bench.ledger.release_hold()
    await service.tick()
    assert set(service.switching.values()) == {DECODE}


async def test_on_this_machine_a_crowded_gpu_is_as_many_places() -> None:
    service = Service()
    worker, other = service.fleet[DENOISE]
    for one in service.bench.roster.workers.values():
        one.slot = "gpu0"
    cards = service.controller.placing.cards()
    assert cards[worker] == Card(
        worker, frozenset({DENOISE}), open_to=frozenset({ENCODE, DECODE}), loose=frozenset({DENOISE})
    )
    assert cards[other].name == other
    assert not cards[service.fleet[ENCODE][0]].loose, "the last of its role"
