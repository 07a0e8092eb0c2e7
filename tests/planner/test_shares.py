"""Where workers stand when the plan says which types of GPU they are for."""

from collections import Counter

from planner.domain import Role
from planner.run.fleet import NodeRoom, SlotPlan, lay_out

ENCODE, DENOISE, DECODE = (Role("m", stage) for stage in ("encode", "denoise", "decode"))
H100, A100 = NodeRoom("h", (0,), "H100"), NodeRoom("a", (0,), "A100")
L4S = [NodeRoom("l1", (0,), "L4"), NodeRoom("l2", (0,), "L4")]
WANTED = {ENCODE: 1, DENOISE: 2, DECODE: 1}
SHARES = {(ENCODE, "L4"): 1, (DENOISE, "H100"): 1, (DENOISE, "A100"): 1, (DECODE, "L4"): 1}


def at(plans: list[SlotPlan]) -> dict[str, list[str]]:
    """Stage → the nodes on which it stands."""
    found: dict[str, list[str]] = {}
    for plan in sorted(plans, key=lambda one: one.node):
        found.setdefault(plan.role.stage, []).append(plan.node)
    return found


def test_each_role_stands_on_its_types() -> None:
    found = at(lay_out(WANTED, [A100, *L4S, H100], shares=SHARES))
    assert found["denoise"] == ["a", "h"]
    assert sorted(found["encode"] + found["decode"]) == ["l1", "l2"]


def test_who_has_a_share_waits_for_its_type() -> None:
    assert set(at(lay_out(WANTED, L4S, shares=SHARES))) == {"encode", "decode"}


def test_when_the_second_node_of_a_type_comes_one_of_two_moves_there() -> None:
    first = lay_out(WANTED, L4S[:1], shares=SHARES)
    assert at(first) == {"encode": ["l1"], "decode": ["l1"]}
    assert sorted(node for nodes in at(lay_out(WANTED, L4S, first, SHARES)).values() for node in nodes) == ["l1", "l2"]


def test_a_bundle_is_one_of_each_on_a_gpu_not_two_of_a_kind() -> None:
    shares = {(ENCODE, "L4"): 2, (DECODE, "L4"): 2}
    plans = lay_out({ENCODE: 2, DECODE: 2}, L4S, shares=shares)
    assert Counter((plan.node, plan.role.stage) for plan in plans) == {
        (node, stage): 1 for node in ("l1", "l2") for stage in ("encode", "decode")
    }
    assert lay_out({ENCODE: 2, DECODE: 2}, L4S, plans, shares) == plans


def test_whoever_is_beyond_the_shares_prefers_the_types_of_its_role() -> None:
    plans = lay_out({**WANTED, DENOISE: 3}, [*L4S, H100, A100], shares=SHARES)
    assert Counter(plan.node for plan in plans if plan.role == DENOISE) in ({"h": 2, "a": 1}, {"h": 1, "a": 2})
