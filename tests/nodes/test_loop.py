"""The control loop over a pretended cloud: what it decides reaches machines, and what machines do reaches it."""

import asyncio
import math
from pathlib import Path
from typing import Any

import pytest

from disagctl.controller import Controller, decode_seating
from disagctl.keeper import RentedMachines
from disagctl.load_watch import LoadWatch
from planner.domain import Offer, RequestClass, Role, Shape, Workload
from planner.plan import NodeCount, Plan, Route, Row, SolverReport
from planner.run.config import PolicyConfig, RoleBounds
from planner.run.decisions import Solve
from planner.run.fleet import NodeWish
from planner.run.observe import Lapse, Planned
from planner.run.policy import Policy
from planner.run.rent import key_of
from planner.run.seating import Seating
from tests.nodes.cloud import H100, H100_WEST, Cloud, Head

DENOISE = Role("m", "denoise")
SHAPE = Shape(32, 32)
WISH = NodeWish(key_of(H100), (H100, H100_WEST), 1)
A100 = Offer("cloud", "east", "mid", "A100", 1, False, 2.0)


def plan(count: int) -> Plan:
    usd = count * H100.usd_per_hour
    row = Row("m", "denoise", H100, count, count, 1, 2.0, 0.5, usd, "measured", (Route(SHAPE, 1.0),))
    return Plan(usd, 1.0, 1.0, 1.0, (row,), (NodeCount(H100, count, usd),), SolverReport("optimal", 0.0, 0.1))


class Loop:
    """A head's loop over the cloud; the planner has a node for every 0.4 requests a second."""

    def __init__(self, cloud: Cloud, path: Path, wish: NodeWish = WISH, **config: Any) -> None:
        self.cloud = cloud
        self.head = Head(cloud, path / "ledger.db", (wish,))
        self.asked: list[Solve] = []
        settings = {
            "load_s": {DENOISE: 1.0}, "launch_s": 20.0, "elastic": True, "fits": {"H100": frozenset({(DENOISE,)})},
            "seating": Seating({"H100": {DENOISE: 1}}), "slo_p95_s": {"m": 10.0},
            "workload": Workload((RequestClass("m", SHAPE, 0.1, 10.0),)), **config,
        }  # fmt: skip
        policy = Policy(PolicyConfig((RoleBounds(DENOISE),), **settings), lambda role, gpu, shape: 2.0)
        self.watch = LoadWatch(self.head.engine, lambda model, shape: 10.0)
        self.machines = RentedMachines(self.head.nodes, self.head.engine.roster, self.watch.observer)
        self.stored: dict[str, str] = {}
        self.controller = Controller(self.watch, policy, self.machines, self.head.event, self._save, self._answer)
        self.controller.plan = "p"
        self.head.engine.roster.by_actual = True

    async def _save(self, key: str, value: str) -> None:
        self.stored[key] = value

    def _answer(self, question: Solve) -> Planned:
        self.asked.append(question)
        count = math.ceil(sum(one.rate_per_s for one in question.workload.classes) / 0.4)
        return Planned(question.id, plan(count), wishes=(NodeWish(WISH.key, WISH.offers, count),))

    async def minutes(self, minutes: float, per_min: float) -> None:
        """Time passes; so many requests arrive."""
        for second in range(round(60 * minutes)):
            if per_min and second % round(60 / per_min) == 0:
                self.watch.observer.arrived("m", SHAPE, self.cloud.now)
                self.watch.observer.assigned(DENOISE, SHAPE)
            await self.head.turn()
            if second % 5 == 0:
                self.controller.tick()
                while self.controller._tasks:
                    await asyncio.wait(self.controller._tasks)
                    await asyncio.sleep(0)


async def test_a_step_in_the_load_rents_and_gives_back(cloud: Cloud, tmp_path: Path) -> None:
    loop = Loop(cloud, tmp_path)
    await loop.minutes(2, 6)
    assert len(cloud.machines) == 1
    assert not loop.asked
    await loop.minutes(4, 60)
    assert len(cloud.machines) == 3
    assert loop.head.engine.roster.shares == {(DENOISE, "H100"): 3}
    assert decode_seating(loop.stored["seating"], "p") == Seating({"H100": {DENOISE: 3}})
    assert decode_seating(loop.stored["seating"], "another") is None
    await loop.minutes(25, 6)
    assert len(cloud.machines) == 1
    assert loop.head.engine.roster.shares == {(DENOISE, "H100"): 1}
    nodes = loop.head.said("nodes")
    assert [why.partition(" of ")[0] for why in nodes] == ["2", "3", "2", "1"]
    assert "times what is there" in nodes[0]
    assert "was needed" in nodes[-1]
    loop.head.close()


async def test_launches_are_timed_and_stand_ins_count_as_what_they_are(cloud: Cloud, tmp_path: Path) -> None:
    cloud.empty = {str(H100), str(H100_WEST)}
    loop = Loop(cloud, tmp_path, NodeWish(WISH.key, (H100, A100), 1))
    await loop.head.turn()
    assert [(room.accelerator, room.up, room.coming) for room in loop.machines.rooms()] == [("H100", 0, 1)]
    await loop.head.turns(15)
    assert [(room.accelerator, room.up, room.coming) for room in loop.machines.rooms()] == [("A100", 1, 0)]
    (lapse,) = loop.watch.observer.take(()).lapses
    assert isinstance(lapse, Lapse)
    assert (lapse.kind, lapse.offer) == ("launch", WISH.key)
    assert 5.0 <= lapse.seconds <= 15.0
    assert loop.machines.counts()[0].up == 1
    await loop.minutes(1, 6)
    assert loop.head.engine.roster.plans == [], "what may not run on an A100 is not put there"
    loop.head.close()


async def test_what_has_no_capacity_is_named_to_the_planner(cloud: Cloud, tmp_path: Path) -> None:
    cloud.empty = {str(H100), str(H100_WEST)}
    loop = Loop(cloud, tmp_path)
    await loop.head.turns(3)
    assert loop.machines.without() == {WISH.key}
    assert loop.machines.running() == ()
    loop.head.close()


@pytest.mark.parametrize("text", ["", '["other",[]]'])
def test_there_may_be_no_seating(text: str) -> None:
    assert decode_seating(text, "p") is None
