"""Renting and releasing: asked for as a Solve, met as an observation, new before old."""

import msgspec

from planner.domain import Offer, RequestClass
from planner.plan.result import Infeasible, Plan, SolverReport
from planner.plan.result import NodeCount as PlannedNodes
from planner.run.config import PolicyConfig, RoleBounds
from planner.run.decisions import Decision, Solve, WishNodes
from planner.run.fleetplan import NodePlanner
from planner.run.observe import NodeCount, Observation, Planned
from planner.run.rent import key_of
from tests.planner_control.lab import FOUR, ROLES

SMALL = Offer("c", "r", "small", "H100", 1, False, 4.0)
LARGE = Offer("c", "r", "large", "H100", 8, False, 30.0)
CONFIG = PolicyConfig(roles=tuple(RoleBounds(role) for role in ROLES), elastic=True, patience_s=600.0)
CLASSES = (RequestClass("wan", FOUR, 0.1, None),)


def present(offer: Offer, up: int, wished: int | None = None) -> NodeCount:
    return NodeCount(key_of(offer), offer, up if wished is None else wished, up)


def answer(question: int, *nodes: tuple[Offer, int]) -> Planned:
    counts = tuple(PlannedNodes(offer, count, count * offer.usd_per_hour) for offer, count in nodes)
    usd = sum(one.usd_per_hour for one in counts)
    return Planned(question, Plan(usd, 6.0, 7.0, 90.0, (), counts, SolverReport("optimal", 0.0, 0.1)))


def step(planner: NodePlanner, now: float, fits: float = 2.0, load: float = 8.0, **seen: object) -> list[Decision]:
    observed = msgspec.structs.replace(Observation(()), **seen)
    return planner.step(observed, CLASSES, load, fits, now, 360.0)


def test_more_is_asked_for_at_once_and_the_answer_wished_for() -> None:
    planner = NodePlanner(CONFIG)
    assert step(planner, 0.0, nodes=(present(SMALL, 4),)) == []
    (question,) = step(planner, 5.0, fits=0.6, nodes=(present(SMALL, 4),))
    assert isinstance(question, Solve)
    assert question.why.code == "load"
    assert step(planner, 10.0, fits=0.6, nodes=(present(SMALL, 4),)) == []  # one question at a time
    (wish,) = step(planner, 15.0, fits=0.6, nodes=(present(SMALL, 4),), planned=answer(question.id, (SMALL, 7)))
    assert isinstance(wish, WishNodes)
    assert [(one.key, one.count) for one in wish.wishes] == [(key_of(SMALL), 7)]
    assert step(planner, 20.0, fits=0.6, nodes=(present(SMALL, 4, 7),)) == []  # observe only, while they come


def test_new_nodes_are_up_before_old_ones_go() -> None:
    planner = NodePlanner(CONFIG)
    (question,) = step(planner, 5.0, fits=0.6, nodes=(present(SMALL, 4),))
    assert isinstance(question, Solve)
    (both,) = step(planner, 10.0, nodes=(present(SMALL, 4),), planned=answer(question.id, (LARGE, 1)))
    assert isinstance(both, WishNodes)
    assert {one.key: one.count for one in both.wishes} == {key_of(LARGE): 1, key_of(SMALL): 4}
    assert step(planner, 100.0, nodes=(present(SMALL, 4), present(LARGE, 0, 1))) == []
    (after,) = step(planner, 400.0, nodes=(present(SMALL, 4), present(LARGE, 1)))
    assert isinstance(after, WishNodes)
    assert {one.key: one.count for one in after.wishes} == {key_of(LARGE): 1}


def test_both_at_once_is_not_more_than_the_budget() -> None:
    planner = NodePlanner(msgspec.structs.replace(CONFIG, max_usd_per_hour=40.0))
    (question,) = step(planner, 5.0, fits=0.6, nodes=(present(SMALL, 4),))
    assert isinstance(question, Solve)
    (wish,) = step(planner, 10.0, nodes=(present(SMALL, 4),), planned=answer(question.id, (LARGE, 1)))
    assert isinstance(wish, WishNodes)
    assert {one.key: one.count for one in wish.wishes} == {key_of(LARGE): 1}


def test_fewer_only_after_the_patience() -> None:
    planner = NodePlanner(CONFIG)
    asked = [now for now in range(0, 2000, 5) if step(planner, float(now), load=8.0 if now < 300 else 2.0)]
    assert asked
    assert asked[0] >= 300 + 600


def test_nothing_is_done_about_what_cannot_be_solved() -> None:
    planner = NodePlanner(CONFIG)
    (question,) = step(planner, 5.0, fits=0.5)
    assert isinstance(question, Solve)
    no = Planned(question.id, Infeasible("over_budget", "budget", "too dear"))
    assert step(planner, 10.0, fits=0.5, planned=no) == []
    assert step(planner, 100.0, fits=0.5) == []
    assert step(planner, 10.0 + 361.0, fits=0.5)


def test_a_spent_budget_rents_no_more() -> None:
    planner = NodePlanner(msgspec.structs.replace(CONFIG, max_usd_total=100.0))
    assert step(planner, 5.0, fits=0.5, usd_total=100.0) == []
    assert step(planner, 10.0, fits=0.5, usd_total=99.0)


def test_what_is_too_much_stays_until_the_rest_has_come() -> None:
    planner = NodePlanner(CONFIG)
    (question,) = step(planner, 5.0, fits=0.6, nodes=(present(SMALL, 2, 4), present(LARGE, 1)))
    assert isinstance(question, Solve)
    nodes = (present(SMALL, 2, 4), present(LARGE, 1))
    assert step(planner, 10.0, fits=0.6, nodes=nodes, planned=answer(question.id, (SMALL, 4))) == []
    (after,) = step(planner, 400.0, nodes=(present(SMALL, 4), present(LARGE, 1)))
    assert isinstance(after, WishNodes)
    assert {one.key: one.count for one in after.wishes} == {key_of(SMALL): 4}


def test_less_than_the_load_is_never_a_reason_for_fewer() -> None:
    planner = NodePlanner(CONFIG)
    (question,) = step(planner, 5.0, fits=0.6, nodes=(present(SMALL, 4),))
    assert isinstance(question, Solve)
    part = msgspec.structs.replace(answer(question.id, (SMALL, 3)), share=0.5)
    assert step(planner, 10.0, fits=0.6, nodes=(present(SMALL, 4),), planned=part) == []


def test_a_lost_node_is_replaced_though_the_planner_would_do_without() -> None:
    planner = NodePlanner(CONFIG)
    nodes = (present(SMALL, 2), present(LARGE, 0, 1))  # the large one is lost: wished for, neither up nor coming
    (question,) = step(planner, 5.0, fits=0.9, nodes=nodes)
    assert isinstance(question, Solve)
    assert step(planner, 10.0, fits=0.9, nodes=nodes, planned=answer(question.id, (SMALL, 2))) == []


def test_what_the_planner_found_enough_is_not_asked_about_again_at_once() -> None:
    planner = NodePlanner(CONFIG)
    there = (present(SMALL, 4),)

    def asked(
        since: float, until: float, rate: float = 0.1, load: float = 8.0, nodes: tuple[NodeCount, ...] = there
    ) -> list[float]:
        classes = (RequestClass("wan", FOUR, rate, None),)
        seen, at = None, []
        for tick in range(int(since), int(until), 5):
            out = planner.step(Observation((), nodes=nodes, planned=seen), classes, load, 0.6, float(tick), 360.0)
            seen = answer(out[0].id, (SMALL, 4)) if out and isinstance(out[0], Solve) else None
            at += [float(tick)] if out else []
        return at

    assert asked(0, 3600) == [0.0, 365.0, 1090.0, 2535.0]
    assert asked(3600, 4000, rate=0.2) == [3600.0]
    assert asked(5400, 6000, load=9.0) == [5400.0], "measured seconds grew"
    assert asked(7000, 7500, nodes=(present(SMALL, 3, 4),)) == [7000.0]
