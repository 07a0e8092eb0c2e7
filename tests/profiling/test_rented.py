"""Profiling on rented machines, against a provider that is played."""

import asyncio
from collections.abc import Sequence
from pathlib import Path

import pytest

from disagctl import orphans
from disagctl.errors import InfeasibleError, OverBudgetError, UnexpectedError
from disagctl.profiling.errand import Errand, Result, lines_of, result_in, run
from disagctl.profiling.leases import Lease
from disagctl.profiling.rented import Wish, find_offers, measure
from disagctl.provision.base import HandleState, NodeHandle, NodeRequest, Provisioner
from planner.domain import Offer

L4 = Offer("aws", "r", "g6", "L4", 1, spot=False, usd_per_hour=0.7)
H100 = Offer("aws", "r", "p5", "H100", 1, spot=False, usd_per_hour=3.0)
MADE = Result(0, "model,stage\nm,encodé\n" * 500, "")
WISH = Wish({"L4": (L4,), "H100": (H100,)}, ("synthetic",), 60.0)


class Cloud(Provisioner):
    """Gives machines that are up at once and say ``said``; or behaves as told."""

    name, period_s, lag_s = "cloud", 0.0, 0.0

    def __init__(self, said: Sequence[str], state: HandleState = "up", refuses: Exception | None = None) -> None:
        self.said, self.state, self.refuses = tuple(said), state, refuses
        self.there: dict[str, NodeRequest] = {}
        self.asked: list[NodeRequest] = []
        self.listed = asyncio.Event()

    async def launch(self, request: NodeRequest) -> NodeHandle:
        self.asked.append(request)
        if self.refuses is not None:
            raise self.refuses
        self.there[request.intent] = request
        return NodeHandle(request.node, "launching", request.intent)

    async def list(self, known: Sequence[NodeHandle]) -> list[NodeHandle]:
        self.listed.set()
        strays = [NodeHandle(r.node, "up", intent, r.offers[0]) for intent, r in self.there.items() if not known]
        return [NodeHandle(one.node, self.state, one.intent) for one in known] + strays

    async def release(self, handle: NodeHandle) -> None:
        await asyncio.sleep(0)
        self.there.pop(handle.intent, None)

    async def logs(self, handle: NodeHandle, tail: int) -> tuple[str, ...]:
        return self.said[-tail:]


@pytest.fixture(autouse=True)
def _own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DISAGCTL_HOME", str(tmp_path / "home"))


def measured(cloud: Cloud) -> tuple[Lease, list[tuple[str, Result]]]:
    found: list[tuple[str, Result]] = []
    lease = asyncio.run(
        measure(WISH, lambda *_: cloud, lambda _: None, lambda gpu, result, _: found.append((gpu, result)))
    )
    return lease, found


def test_each_gpu_is_rented_measured_and_released_in_turn() -> None:
    cloud = Cloud(["setting up", *lines_of(MADE), "waiting"])
    lease, found = measured(cloud)
    assert found == [("L4", MADE), ("H100", MADE)]
    assert [request.script for request in cloud.asked] == ["profile.sh"] * 2
    assert cloud.there == {}
    assert all(rental.ended_at is not None for rental in lease.rentals)


@pytest.mark.parametrize(
    "cloud",
    [
        Cloud([], state="failed"),
        Cloud([], state="gone"),
        Cloud([], refuses=InfeasibleError("none")),
        Cloud([], refuses=OSError()),
    ],
)
def test_nothing_stays_after_a_failure(cloud: Cloud) -> None:
    with pytest.raises((InfeasibleError, UnexpectedError, OSError)):
        measured(cloud)
    assert cloud.there == {}
    assert len(cloud.asked) == 1


def test_nothing_stays_after_an_interruption_and_until_then_it_is_no_orphan() -> None:
    cloud = Cloud([])

    async def interrupted() -> int:
        task = asyncio.create_task(measure(WISH, lambda *_: cloud, lambda _: None, lambda *_: None))
        await cloud.listed.wait()
        seen = await asyncio.to_thread(orphans.find, lambda *_: cloud)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        return len(seen)

    assert asyncio.run(interrupted()) == 0
    assert cloud.there == {}


def test_machines_of_a_run_that_died_are_orphans() -> None:
    cloud = Cloud(lines_of(MADE))
    lease, _ = measured(cloud)
    lease.pid_created -= 1000
    lease.rentals[0].ended_at = None
    lease.save()
    cloud.there[lease.rentals[0].intent] = cloud.asked[0]
    assert [orphan.node for orphan in orphans.find(lambda *_: cloud)] == ["p1"]


def test_a_result_is_told_only_when_all_of_it_is_there() -> None:
    lines = lines_of(MADE)
    assert len(lines) > 2
    assert result_in(lines[:-1]) is None
    assert result_in(["noise", *reversed(lines)]) == MADE


def test_the_errand_measures_where_it_runs() -> None:
    stages = '{"encode": {"seconds": 0.001}}'
    made = run(Errand(("synthetic", "--options", stages, "--shape", "64x64@1", "--repeats", "1"), 120.0))
    assert made.code == 0, made.said
    assert "synthetic,encode,CPU" in made.rows


def test_offers_within_the_budget(tmp_path: Path) -> None:
    catalog = tmp_path / "c.csv"
    catalog.write_text(
        "cloud,region,instance_type,accelerator,count,price,spot_price,max_nodes\n"
        "aws,r,p5,H100,8,24,,\naws,r,p1,H100,1,3,1,\naws,r,p2,H100,1,2.5,,\n"
    )
    found = find_offers(["aws"], ["h100"], str(catalog), 2.7)
    assert [offer.instance_type for offer in found["H100"]] == ["p2"]
    with pytest.raises(OverBudgetError):
        find_offers(["aws"], ["H100"], str(catalog), 1.0)
    with pytest.raises(InfeasibleError):
        find_offers(["aws"], ["L4"], str(catalog), None)
    assert find_offers(["slurm/c1"], ["L4"], str(catalog), None)["L4"][0].region == "c1"
