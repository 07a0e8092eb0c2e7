"""From a plan to wishes with stand-ins, what they may cost, what they have cost, and whose machines are nobody's."""

import asyncio
from pathlib import Path

import msgspec
import pytest

from disagctl import orphans, state, teardown, uids
from disagctl.errors import TeardownError, UnhealthyError
from disagctl.provision.base import NodeHandle, NodeRequest
from disagctl.spending import IDLE, cost_view
from disagctl.store.rows import NodeRow
from planner.domain import Offer, Role, Shape
from planner.plan import NodeCount, Plan, Route, Row, SolverReport
from planner.run.rent import deployment
from stages.boot import Bootstrap
from tests.nodes.cloud import Cloud

SHAPE = Shape(32, 32)
H100 = Offer("cloud", "east", "big", "H100", 1, True, 2.0)
DEARER = Offer("cloud", "east", "big", "H100", 1, False, 4.0)
WEST = Offer("cloud", "west", "big", "H100", 1, True, 2.5)
ELSEWHERE = Offer("other", "east", "big", "H100", 1, True, 1.0)
A100 = Offer("cloud", "east", "mid", "A100", 1, False, 1.5)
L4 = Offer("cloud", "east", "small", "L4", 1, False, 0.5)
MARKET = (H100, DEARER, WEST, ELSEWHERE, A100, L4)


def row(stage: str, offer: Offer, count: int = 1) -> Row:
    return Row(
        "m", stage, offer, count, count, 1, 1.0, 0.5, count * offer.usd_per_hour, "measured", (Route(SHAPE, 1.0),)
    )


def plan() -> Plan:
    rows = (row("denoise", H100, 2), row("denoise", A100), row("encode+decode", L4, 2))
    nodes = tuple(NodeCount(r.offer, r.nodes, r.usd_per_hour) for r in rows)
    return Plan(6.5, 1.0, 1.0, 1.0, rows, nodes, SolverReport("optimal", 0.0, 0.1))


def test_a_plan_becomes_wishes_shares_and_counts() -> None:
    made = deployment(plan(), MARKET)
    assert made.wanted == {Role("m", "denoise"): 3, Role("m", "encode"): 2, Role("m", "decode"): 2}
    assert [(wish.count, wish.offers[0]) for wish in made.wishes] == [(2, H100), (1, A100), (2, L4)]
    assert made.wishes[0].offers == (H100, WEST, DEARER, A100), (
        "elsewhere, on demand, then what the plan has for the stage"
    )
    assert made.wishes[2].offers == (L4,), "nothing else is known to hold it; another cloud is not allowed"
    assert ELSEWHERE in deployment(plan(), MARKET, cross_cloud=True).wishes[0].offers


def test_stand_ins_that_could_break_the_budget_are_left_out_first_offers_never() -> None:
    assert deployment(plan(), MARKET).dearest_usd_per_hour == pytest.approx(2 * 4.0 + 4.0 + 2 * 0.5)
    made = deployment(plan(), MARKET, 8.0)
    assert made.dearest_usd_per_hour <= 8.0
    assert [wish.offers[0] for wish in made.wishes] == [H100, A100, L4]
    tight = deployment(plan(), MARKET, 1.0).wishes
    assert all(offer.usd_per_hour <= wish.offers[0].usd_per_hour for wish in tight for offer in wish.offers)


def node(name: str, usd: float, since: float | None, closed: float | None = None, **parts: float) -> NodeRow:
    state_ = "gone" if closed else "up"
    return NodeRow(
        name,
        "sky",
        "o",
        usd,
        "",
        None,
        state_,
        0.0,
        closed_at=closed,
        billed_from=since,
        parts=msgspec.json.encode(parts),
    )


def test_what_it_cost_by_stage_and_by_machine() -> None:
    rows = [
        node("n1", 3.6, 0.0, 1000.0, encode=1.0, decode=3.0),
        node("n2", 7.2, 1000.0, denoise=7.2),
        node("n3", 9.9, None, 5.0, denoise=9.9),  # it never was
        node("n4", 3.6, 1000.0),
    ]
    view = cost_view("shop", rows, 500, 2000.0)
    assert {stage.stage: round(stage.usd, 6) for stage in view.stages} == {
        "encode": 0.25, "decode": 0.75, "denoise": 2.0, IDLE: 1.0,
    }  # fmt: skip
    assert (round(view.usd_total, 6), view.usd_per_hour, view.usd_per_1000) == (4.0, 10.8, 8.0)
    assert cost_view("shop", [], 0, 0.0).usd_per_1000 is None


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("DISAGCTL_HOME", str(tmp_path))
    return tmp_path


def remember(uid: str) -> None:
    uids.remember_uid(state.ServiceRecord("shop", uid, 0.0, "127.0.0.1", 1, 2, 3, 4, "", ["slurm"]))


async def machine(cloud: Cloud, intent: str) -> NodeHandle:
    boot = msgspec.json.encode(Bootstrap("", "", "", "", "", ""))
    return await cloud.launch(NodeRequest("n1", intent, "shop", "cafe", (L4,), boot))


def test_gc_knows_only_tags_of_ours(cloud: Cloud, home: Path) -> None:
    asyncio.run(machine(cloud, "feed"))
    asked: list[str] = []

    def provider(_service: str, uid: str) -> Cloud:
        asked.append(uid)
        return cloud

    assert orphans.find(provider) == []
    remember("cafe")
    remember("cafe")
    (found,) = orphans.find(provider)
    assert asked == ["cafe"]
    assert (found.service, found.node, found.usd_per_hour) == ("shop", "n1", 0.5)
    orphans.kill([found], lambda _line: None, provider)
    assert cloud.machines == {}


def test_gc_says_what_it_could_not_end(cloud: Cloud, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(teardown, "MOST_TURNS", 2)
    monkeypatch.setattr(cloud, "period_s", 0.0)
    cloud.lies = 99
    asyncio.run(machine(cloud, "feed"))
    remember("cafe")
    found = orphans.find(lambda *_: cloud)
    with pytest.raises(TeardownError, match=r"c-feed \(\$0.50/h\) may still run"):
        orphans.kill(found, lambda _line: None, lambda *_: cloud)


async def test_release_all_wants_to_be_told_twice(cloud: Cloud, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cloud, "period_s", 0.0)
    known = await machine(cloud, "feed")
    await machine(cloud, "beef")  # a stray
    assert await teardown.release_all(cloud, [known], lambda _line: None) == []
    assert cloud.machines == {}
    cloud.unreachable = True
    (left,) = await teardown.release_all(cloud, [known], lambda _line: None)
    assert "does not answer" in left.why
    with pytest.raises(UnhealthyError):
        await cloud.list([])
