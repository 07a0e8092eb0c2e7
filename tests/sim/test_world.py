"""The simulated world: nothing is lost, everything is repeatable, and known figures come out."""

import msgspec
import pytest

from planner.domain import Role
from planner.run.config import RoleBounds
from planner.run.decisions import Reason, SetCounts
from planner.run.fleet import NodeWish
from planner.sim import traces
from planner.sim.compare import run_policy
from planner.sim.report import Run
from planner.sim.scenario import Arriving, Noise, Scenario, Trace, offer_of
from planner.sim.world import World
from tests.planner_control.lab import DECODE, DENOISE, ENCODE, FOUR, ONE, ROLES, seconds
from tests.sim.service import counted, scenario, steady

WHY = Reason("bounds", "test")


def run(made: Scenario, *counts: int) -> Run:
    return World(still(made), "static", [(0.0, counted(*counts))]).run()


def still(made: Scenario) -> Scenario:
    """Nobody decides anything."""
    return msgspec.structs.replace(made, policy=msgspec.structs.replace(made.policy, mode="static"))


def test_the_papers_ratios_make_the_papers_throughput() -> None:
    made = scenario(steady(FOUR, 6, 1800))
    assert run(made, 1, 6, 1).between(300, 1800) / 25 == pytest.approx(4.9, rel=0.08)
    assert run(made, 1, 5, 2).between(300, 1800) / 25 == pytest.approx(4.75, rel=0.08)
    after = scenario(steady(ONE, 16, 1800))
    assert run(after, 1, 5, 2).between(300, 1800) / 25 == pytest.approx(8.67, rel=0.08)


def test_a_lone_request_takes_its_services() -> None:
    found = run(msgspec.structs.replace(scenario(Trace("one", (Arriving(0.0, "wan", FOUR),))), end_s=100.0), 1, 6, 1)
    assert [one.latency_s for one in found.ended] == [pytest.approx(0.5 + 63.0 + 13.0)]


def test_transfers_overlap_with_computing_unless_synchronous() -> None:
    noise = Noise(transfer_s=3.0)
    made = msgspec.structs.replace(scenario(steady(FOUR, 6, 1800)), noise=noise)
    async_ = run(made, 1, 6, 1).requests
    assert async_ >= run(scenario(steady(FOUR, 6, 1800)), 1, 6, 1).requests - 1
    assert run(msgspec.structs.replace(made, synchronous=True), 1, 6, 1).requests < 0.85 * async_


def test_a_switch_drains_loads_and_loses_nothing() -> None:
    made = msgspec.structs.replace(scenario(steady(FOUR, 4, 1200)), end_s=4000.0)
    found = World(still(made), "moved", [(0.0, counted(1, 6, 1)), (600.0, counted(1, 5, 2))]).run()
    assert found.requests == found.arrived
    assert found.failed == 0
    (took,) = found.rebalances_s
    assert 10.0 <= took <= 63.0 + 10.0
    assert {sample.ready for sample in found.samples} >= {(1, 6, 1), (1, 5, 2)}


def test_a_worker_that_shall_stay_after_all_does() -> None:
    made = msgspec.structs.replace(scenario(steady(FOUR, 4, 1200)), end_s=4000.0)
    found = World(
        still(made), "undone", [(0.0, counted(1, 6, 1)), (600.0, counted(1, 5, 2)), (601.0, counted(1, 6, 1))]
    ).run()
    assert found.requests == found.arrived
    assert found.samples[-1].ready == (1, 6, 1)


def test_the_same_seed_gives_the_same_bytes_and_another_does_not() -> None:
    noise = Noise(service_sigma=0.1, load_sigma=0.2, transfer_s=0.05, jitter_share=0.1, jitter_s=0.3)
    made = msgspec.structs.replace(scenario(traces.paper("wan")), noise=noise, seed=4)
    first, second = (msgspec.json.encode(run_policy(made, "dynamic", "hybrid")[0]) for _ in range(2))
    assert first == second
    other = msgspec.structs.replace(made, seed=5)
    assert msgspec.json.encode(run_policy(other, "dynamic", "hybrid")[0]) != first


@pytest.mark.parametrize("seed", range(4))
def test_preempted_nodes_lose_no_request(seed: int) -> None:
    offer = msgspec.structs.replace(offer_of("H100", 1, 4.0, launch_s=60.0), spot=True)
    made = scenario(steady(FOUR, 2, 3600))
    made = msgspec.structs.replace(
        made, nodes=(NodeWish("spot", (offer,), 8),), noise=Noise(preempt_per_h=2.0), seed=seed, end_s=9000.0
    )
    found = run(made, 1, 5, 2)
    assert found.requests + found.failed == found.arrived
    assert found.failed == 0
    assert found.redelivered > 0


def test_nodes_are_launched_drained_and_paid_for() -> None:
    offer = offer_of("H100", 1, 3.6, launch_s=120.0)
    made = msgspec.structs.replace(scenario(steady(FOUR, 2, 1200)), nodes=(NodeWish("h", (offer,), 4),), end_s=3600.0)
    world = World(still(made), "nodes", [(0.0, counted(1, 2, 1))])
    world.at(600.0, world.fleet.wish, (NodeWish("h", (offer,), 6),))
    world.at(1800.0, world.fleet.wish, (NodeWish("h", (offer,), 4),))
    found = world.run()
    assert found.requests == found.arrived
    assert found.usd == pytest.approx((4 * 3600 + 2 * 1200) / 1000, rel=0.02)
    assert [round(sample.usd_per_hour, 1) for sample in found.samples if sample.at_s in (300.0, 1200.0, 3000.0)] == [
        14.4, 21.6, 14.4,
    ]  # fmt: skip


def test_a_closed_load_keeps_so_many_in_the_system() -> None:
    made = msgspec.structs.replace(scenario(steady(FOUR, 60, 600)), in_flight=16, end_s=1800.0)
    found = run(made, 1, 6, 1)
    assert found.arrived - found.requests == 16
    assert found.between(300, 1800) / 25 == pytest.approx(60 / 13, rel=0.03)


def test_two_models_share_the_workers() -> None:
    rows = [*steady(FOUR, 2, 1800).rows, *(Arriving(r.at_s, "qwen", ONE) for r in steady(ONE, 4, 1800).rows)]
    base = scenario(Trace("two", tuple(sorted(rows, key=lambda row: row.at_s))))
    roles = (*ROLES, *(Role("qwen", role.stage) for role in ROLES))
    made = msgspec.structs.replace(
        base, stages={"wan": ("encode", "denoise", "decode"), "qwen": ("encode", "denoise", "decode")}
    )
    policy = msgspec.structs.replace(made.policy, roles=tuple(RoleBounds(role) for role in roles))
    made = msgspec.structs.replace(made, end_s=3600.0, policy=policy)
    counts = dict(zip(roles, (1, 2, 1, 1, 2, 1), strict=True))
    found = World(still(made), "two", [(0.0, SetCounts(counts, WHY))]).run()
    assert found.requests == found.arrived
    assert found.roles == roles


def test_workers_by_role_follow_the_accelerator_they_are_meant_for() -> None:
    nodes = (NodeWish("h", (offer_of("H100", 7, 28.0),), 1), NodeWish("l", (offer_of("L4", 1, 0.8),), 1))
    made = msgspec.structs.replace(scenario(steady(FOUR, 4, 600)), nodes=nodes)
    first = SetCounts({ENCODE: 1, DENOISE: 5, DECODE: 2}, WHY, {"L4": {ENCODE: 1}, "H100": {DENOISE: 5, DECODE: 2}})
    world = World(still(made), "mixed", [(0.0, first)])
    world.run()
    assert {w.accelerator for w in world.fleet.workers.values() if w.role == ENCODE} == {"L4"}


def test_one_quick_decoder_does_not_idle_many_denoisers() -> None:
    made = scenario(steady(FOUR, 20, 3600), workers=18)
    fast = msgspec.structs.replace(
        made, seconds=lambda role, name, shape: 1.0 if role == DECODE else seconds(role, name, shape)
    )
    assert run(fast, 1, 16, 1).between(600, 3600) / 50 == pytest.approx(16 / 63 * 60, rel=0.03)


def test_stages_that_share_a_gpu_compute_in_turn() -> None:
    whole = frozenset({tuple(ROLES), *((role,) for role in ROLES)})
    made = scenario(steady(FOUR, 60.0, 3600.0), workers=2)
    config = msgspec.structs.replace(made.policy, fits={"H100": whole}, mode="static")
    first = SetCounts(dict.fromkeys(ROLES, 2), WHY, {"H100": dict.fromkeys(ROLES, 2)}, {"H100": {tuple(ROLES): 2}})
    found = World(msgspec.structs.replace(made, policy=config), "whole", [(0.0, first)]).run()
    each_s = sum(seconds(role, "H100", FOUR) for role in ROLES)
    assert found.requests == pytest.approx(2 * 3600.0 / each_s, rel=0.05)
