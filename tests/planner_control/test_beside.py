"""Several roles on one GPU by a dispatch policy's orders: what may be together, what is done first, and what never happens."""

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from planner.domain import Offer, RequestClass, Role, Shape, Workload
from planner.plan import NodeCount, Plan, Row, SolverReport
from planner.run.config import PolicyConfig, RoleBounds
from planner.run.decisions import Decision, SetCounts
from planner.run.effects import LoadRole
from planner.run.fleet import Bundle, NodeRoom, Seat, SlotPlan, by_worth, lay_out
from planner.run.observe import Observer, RoleState, Room
from planner.run.orders import Card
from planner.run.placing import Step, step_of
from planner.run.policies.placement import Demand, Space, cheapest
from planner.run.policy import Policy
from planner.run.seating import PROCESS_GIB, Seating, Together

Roles = frozenset[Role]
A_ENCODE, A_DENOISE, A_DECODE = (Role("a", stage) for stage in ("encode", "denoise", "decode"))
B_ENCODE, B_DENOISE, B_DECODE = (Role("b", stage) for stage in ("encode", "denoise", "decode"))
ROLES = (A_ENCODE, A_DENOISE, A_DECODE, B_ENCODE, B_DENOISE, B_DECODE)
NEEDS = {
    A_ENCODE: 10.0,
    A_DENOISE: 50.0,
    A_DECODE: 8.0,
    B_ENCODE: 10.0,
    B_DENOISE: 25.0,
}  # nothing is known of b.decode
SINGLES = {(role,) for role in ROLES}
H100 = Together(frozenset({*SINGLES, (A_DENOISE, A_DECODE), (B_ENCODE, B_DENOISE, B_DECODE)}), NEEDS, 72.0)
L4 = Together(frozenset(SINGLES - {(A_DENOISE,)}), NEEDS, 21.0)
CARDS = {"H100": H100, "L4": L4}
SHAPE = Shape(512, 512, 1, 20)


def order(role: Role, *drop: Role) -> LoadRole:
    return LoadRole("w", role, drop, "wanted")


# --- what may be together ---


def test_what_the_planner_has_together_may_be_and_any_part_of_it() -> None:
    assert H100.holds(frozenset({B_ENCODE, B_DENOISE, B_DECODE}))
    assert H100.holds(frozenset({B_ENCODE, B_DECODE})), "although its memory is not known"
    assert H100.holds(frozenset({A_DENOISE, A_DECODE}))


def test_across_models_all_that_each_takes_at_most_has_room() -> None:
    assert H100.holds(frozenset({A_DENOISE, B_ENCODE}))
    assert H100.why_not(frozenset({A_DENOISE, B_DENOISE, A_DECODE})) == "84.8 GiB of 72.0 would be needed"
    exact = 10.0 + 10.0 + PROCESS_GIB
    assert Together(L4.sets, NEEDS, exact).holds(frozenset({A_ENCODE, B_ENCODE}))
    assert not Together(L4.sets, NEEDS, exact - 0.1).holds(frozenset({A_ENCODE, B_ENCODE}))


def test_what_is_not_known_is_not_put_together() -> None:
    assert H100.why_not(frozenset({A_ENCODE, B_DECODE})) == "the memory of b.decode is not known"
    nobody = Together(H100.sets, NEEDS)
    assert nobody.why_not(frozenset({A_ENCODE, B_ENCODE})) == "the memory of the GPU is not known"
    assert L4.why_not(frozenset({A_DENOISE})) == "a.denoise may not be on such a GPU"


# --- what is done first ---


def test_an_order_is_a_start_a_change_or_first_an_end() -> None:
    both = frozenset({A_DENOISE, A_DECODE})
    assert step_of(order(B_ENCODE), both) == Step(both, both | {B_ENCODE})
    turned = step_of(order(B_ENCODE, A_DECODE), both)
    assert turned == Step(both, frozenset({A_DENOISE, B_ENCODE}), turns=A_DECODE)
    first = step_of(order(B_DENOISE, A_DECODE, A_DENOISE), both)
    assert first == Step(both, frozenset({A_DECODE}), frozenset({A_DENOISE}))
    assert not first.loads
    assert step_of(order(A_DECODE), both) is None, "it is there"
    assert step_of(order(B_ENCODE, A_ENCODE), both) is None, "what is to go is not"


def test_a_seating_follows_one_gpu() -> None:
    before = Seating({"H100": {A_DENOISE: 2, A_DECODE: 1}})
    joined = before.turned("H100", frozenset({A_DENOISE}), frozenset({A_DECODE, A_DENOISE}), ROLES)
    assert joined == Seating({"H100": {A_DENOISE: 1, A_DECODE: 1}}, {"H100": {(A_DENOISE, A_DECODE): 1}})
    assert joined.gpus == before.gpus
    back = joined.turned("H100", frozenset({A_DECODE, A_DENOISE}), frozenset({A_DENOISE}), ROLES)
    assert back == before
    assert before.turned("H100", frozenset({B_ENCODE}), frozenset({A_DENOISE}), ROLES) is None
    assert before.turned("H100", frozenset({A_DENOISE, A_DECODE}), frozenset({A_DENOISE}), ROLES) is None


# --- the loop's policy ---


class Fleet:
    """GPUs and what they hold; granted steps are done at once. Nobody loads for longer than the cooldown."""

    def __init__(
        self, held: list[tuple[str, Roles]], bounds: dict[Role, RoleBounds] | None = None, rented: Seating | None = None
    ) -> None:
        self.held, self.now, self.pinned = list(held), 0.0, dict[Role, int]()
        self.bounds = {role: (bounds or {}).get(role, RoleBounds(role)) for role in ROLES}
        alone: dict[str, dict[Role, int]] = {}
        shared: dict[str, dict[Bundle, int]] = {}
        for kind, roles in held:
            some = tuple(role for role in ROLES if role in roles)
            if len(some) == 1:
                alone.setdefault(kind, {})[some[0]] = alone.get(kind, {}).get(some[0], 0) + 1
            else:
                shared.setdefault(kind, {})[some] = shared.get(kind, {}).get(some, 0) + 1
        kinds = Counter(kind for kind, _ in held)
        config = PolicyConfig(
            tuple(self.bounds.values()), load_s=dict.fromkeys(ROLES, 200.0), placed=True,
            seating=Seating(alone, shared), rented=rented,
            fits={name: card.sets for name, card in CARDS.items()}, together=CARDS,
            workload=Workload((RequestClass("a", SHAPE, 0.01), RequestClass("b", SHAPE, 0.01))),
        )  # fmt: skip
        self.policy = Policy(config, lambda role, gpu, shape: 1.0)
        self.rooms = tuple(Room(kind, count) for kind, count in kinds.items())
        assert self.tick() == (), "it stands as it is"

    def tick(self) -> tuple[Decision, ...]:
        return self.policy.decide(Observer().take(self.states(), self.rooms), self.now)

    @property
    def counts(self) -> Counter[Role]:
        return Counter(role for _, roles in self.held for role in roles)

    def states(self) -> tuple[RoleState, ...]:
        return tuple(RoleState(role, self.counts[role], self.counts[role], 0) for role in ROLES)

    def order(self, gpu: int, asked: LoadRole) -> SetCounts | str:
        kind, roles = self.held[gpu]
        found = self.policy.place(asked, kind, roles, self.states(), self.pinned, self.now)
        if isinstance(found, SetCounts):
            step = step_of(asked, roles)
            assert step is not None
            self.held[gpu] = (kind, step.after)
            assert found.counts == {role: self.counts[role] for role in ROLES}
        return found

    def rest(self) -> None:
        self.now += self.policy.view(self.now).cooldown_s


def fleet(bounds: dict[Role, RoleBounds] | None = None) -> Fleet:
    alone = [("H100", frozenset({role})) for role in (A_DENOISE, A_DENOISE, B_DENOISE, A_DECODE, B_DECODE, B_DECODE)]
    return Fleet([*alone, ("L4", frozenset({A_ENCODE})), ("L4", frozenset({B_ENCODE}))], bounds)


def test_a_worker_is_started_beside_another_and_the_cooldown_is_that_of_a_load() -> None:
    made = fleet()
    found = made.order(0, order(A_DECODE))
    assert isinstance(found, SetCounts)
    assert (found.why.code, found.why.text) == ("placement", "wanted")
    assert found.bundles == {"H100": {(A_DENOISE, A_DECODE): 1}}
    assert found.seating.alone["H100"][A_DENOISE] == 1
    assert made.policy.view(made.now).cooldown_s == pytest.approx(200.0 / 9 / 0.1)
    assert made.order(1, order(A_DECODE)) == "the cooldown is not over"
    made.rest()
    assert isinstance(made.order(1, order(B_ENCODE)), SetCounts), "also of another model, for there is room"
    made.rest()
    assert made.order(1, order(B_DENOISE)) == "86.8 GiB of 72.0 would be needed"


def test_a_worker_that_shares_its_gpu_changes_its_role_if_the_others_still_have_room() -> None:
    made = fleet()
    made.order(0, order(A_DECODE))
    made.rest()
    assert "would be needed" in str(made.order(0, order(B_DENOISE, A_DECODE)))
    assert isinstance(made.order(0, order(B_ENCODE, A_DECODE)), SetCounts)
    assert made.held[0] == ("H100", frozenset({A_DENOISE, B_ENCODE}))


def test_who_has_copies_to_spare_ends_before_the_others_change() -> None:
    made = fleet()
    made.order(0, order(A_DECODE))
    made.rest()
    asked = order(B_DENOISE, A_DECODE, A_DENOISE)
    found = made.order(0, asked)
    assert isinstance(found, SetCounts)
    assert made.held[0] == ("H100", frozenset({A_DECODE}))
    assert found.bundles == {}
    made.rest()
    assert isinstance(made.order(0, order(B_DENOISE, A_DECODE)), SetCounts)
    assert made.held[0] == ("H100", frozenset({B_DENOISE}))


def test_neither_the_last_nor_more_than_bounds_and_pins_say() -> None:
    made = fleet({A_DECODE: RoleBounds(A_DECODE, 1, 1)})
    assert made.order(0, order(A_DECODE)) == "a.decode has all the workers that it may have"
    assert made.order(3, order(B_ENCODE, A_DECODE)) == "a.decode has no worker to spare"
    made.pinned = {B_DECODE: 2}
    assert made.order(4, order(B_ENCODE, B_DECODE)) == "b.decode has no worker to spare"
    assert made.order(2, order(B_DECODE)) == "b.decode has all the workers that it may have"


def test_what_was_ordered_outlives_the_head_and_another_plan_for_the_same_machines() -> None:
    alone = [("H100", frozenset({role})) for role in ROLES[1:]]
    held = [*alone, ("H100", frozenset({A_DENOISE, A_DECODE})), ("L4", frozenset({A_ENCODE}))]
    made = Fleet(held, rented=Seating({"H100": {A_DENOISE: 2, **dict.fromkeys(ROLES[2:], 1)}, "L4": {A_ENCODE: 1}}))
    offer = Offer("cloud", "east", "big", "H100", 6, False, 4.0)
    row = Row("a", "denoise+decode", offer, 3, 3, 1, 2.0, 0.5, 4.0, "measured", ())
    made.policy._nodes.plan = Plan(
        4.0, 1.0, 1.0, 1.0, (row,), (NodeCount(offer, 1, 4.0),), SolverReport("optimal", 0.0, 0.1)
    )
    made.now += 5.0
    assert made.tick() == ()
    made.pinned = {A_DECODE: 1}
    seen = Observer().take(made.states(), made.rooms, pinned=made.pinned)
    assert [one.why.code for one in made.policy.decide(seen, made.now + 5.0)] == ["room"], "but a pin is obeyed"


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_whatever_is_ordered_no_gpu_is_over_its_memory_and_no_role_is_gone(data: st.DataObject) -> None:
    made = fleet({B_DENOISE: RoleBounds(B_DENOISE, 1, 3)})
    granted = 0
    for _ in range(12):
        gpu = data.draw(st.integers(0, len(made.held) - 1))
        roles = made.held[gpu][1]
        drop = data.draw(st.lists(st.sampled_from(sorted(roles, key=str)), unique=True, max_size=2))
        found = made.order(gpu, order(data.draw(st.sampled_from(ROLES)), *drop))
        granted += isinstance(found, SetCounts)
        made.rest()
        for kind, there in made.held:
            planned = any(there <= set(bundle) for bundle in CARDS[kind].sets)
            assert planned or sum(NEEDS[role] for role in there) <= CARDS[kind].usable_gib
        assert min(made.counts[role] for role in ROLES) >= 1
        assert made.counts[B_DENOISE] <= 3
    assert granted <= 12


# --- the placement plan ---


def demand(role: Role, load: float) -> Demand:
    return Demand(role, load, 0.0)


def test_the_plan_puts_a_role_beside_another_before_it_drops_one() -> None:
    demands = {one.role: one for one in (demand(A_DENOISE, 1.0), demand(A_DECODE, 0.5), demand(B_DENOISE, 0.9))}
    held = {"x": frozenset({A_DENOISE}), "y": frozenset({A_DENOISE}), "z": frozenset({A_DECODE})}
    cards = {
        name: Card(name, roles, open_to=frozenset(ROLES) - roles, loose=roles, together=H100)
        for name, roles in held.items()
    }
    spaces = {name: Space(0.0, card) for name, card in cards.items()}
    move = cheapest(demands[A_DECODE], demands, held, spaces)
    assert move is not None
    assert (move.place, move.drop) == ("x", ())
    move = cheapest(demands[B_DENOISE], demands, held, {"x": spaces["x"]})
    assert move is not None
    assert move.drop == (A_DENOISE,), "both together would not fit"
    busy = {"x": Space(0.0, Card("x", held["x"], open_to=frozenset({B_DENOISE}), together=H100))}
    assert cheapest(demands[B_DENOISE], demands, held, busy) is None, "who computes is not dropped"


def test_only_those_go_that_have_to() -> None:
    roles = frozenset({A_DENOISE, A_DECODE})
    demands = {one.role: one for one in (demand(A_DENOISE, 1.0), demand(A_DECODE, 0.1), demand(B_DENOISE, 0.9))}
    held = {"x": roles, "y": roles}
    card = Card("x", roles, open_to=frozenset({B_DENOISE}), loose=roles, together=H100)
    move = cheapest(demands[B_DENOISE], demands, held, {"x": Space(0.0, card)})
    assert move is not None
    assert move.drop == (A_DENOISE,), "it has room beside the decoder, which has less to do and was dropped first"


# --- on nodes ---

NODE = NodeRoom("h", (0, 1), "H100")


def seat(gpu: int, role: Role, slot: str = "", **how: bool) -> Seat:
    return Seat(SlotPlan("h", slot or f"gpu{gpu}", role, gpu), ready=True, **how)


def test_the_worker_is_started_on_the_gpu_that_was_named() -> None:
    before = [seat(0, A_DENOISE), seat(1, A_DENOISE), Seat(SlotPlan("h", "gpu1-1", A_DECODE, 1))]
    shares = {(A_DENOISE, "H100"): 2, (A_DECODE, "H100"): 1}
    plans = lay_out({A_DENOISE: 2, A_DECODE: 1}, [NODE], by_worth(before), shares, {((A_DENOISE, A_DECODE), "H100"): 1})
    assert plans == [one.plan for one in before]


@pytest.mark.parametrize("gpu", [0, 1])
def test_the_worker_that_leaves_is_the_one_that_goes(gpu: int) -> None:
    pairs = [(seat(at, A_DENOISE), seat(at, A_DECODE, f"gpu{at}-1", leaving=at == gpu)) for at in (0, 1)]
    shares = {(A_DENOISE, "H100"): 2, (A_DECODE, "H100"): 1}
    before = by_worth([one for pair in pairs for one in pair])
    plans = lay_out({A_DENOISE: 2, A_DECODE: 1}, [NODE], before, shares, {((A_DENOISE, A_DECODE), "H100"): 1})
    assert plans == [one.plan for pair in pairs for one in pair if not one.leaving]


NODES = (NodeRoom("h", (0, 1, 2), "H100"), NodeRoom("k", (0, 1), "H100"), NodeRoom("l", (0, 1), "L4"))
PLACES = [(one, gpu) for one in NODES for gpu in one.gpus]


def plans_of(held: list[Roles]) -> list[SlotPlan]:
    """Each role of each GPU in a slot."""
    return [
        SlotPlan(node.node, f"gpu{gpu}-{n}" if n else f"gpu{gpu}", role, gpu)
        for (node, gpu), roles in zip(PLACES, held, strict=True)
        for n, role in enumerate(sorted(roles, key=str))
    ]


def laid_out(held: list[Roles], before: list[SlotPlan]) -> list[SlotPlan]:
    """With the counts, shares and bundles of GPUs that hold these."""
    shares: Counter[tuple[Role, str]] = Counter()
    bundles: Counter[tuple[Bundle, str]] = Counter()
    for (node, _), roles in zip(PLACES, held, strict=True):
        shares.update((role, node.accelerator) for role in roles)
        if len(roles) > 1:
            bundles[tuple(role for role in ROLES if role in roles), node.accelerator] += 1
    wanted = Counter(role for roles in held for role in roles)
    return lay_out(wanted, NODES, before, shares, bundles)


HELD = st.lists(st.frozensets(st.sampled_from(ROLES[:4]), min_size=1, max_size=3), min_size=7, max_size=7)


@settings(max_examples=200, deadline=None)
@given(held=HELD, data=st.data())
def test_what_stands_is_left_as_it_is_in_whatever_order_it_is_worth(held: list[Roles], data: st.DataObject) -> None:
    before = plans_of(held)
    assert laid_out(held, data.draw(st.permutations(before))) == before


@settings(max_examples=200, deadline=None)
@given(held=HELD, gpu=st.integers(0, 6), role=st.sampled_from(ROLES[:4]), data=st.data())
def test_one_step_changes_one_gpu(held: list[Roles], gpu: int, role: Role, data: st.DataObject) -> None:
    drop = data.draw(st.lists(st.sampled_from(sorted(held[gpu], key=str)), unique=True, max_size=2))
    step = step_of(order(role, *drop), held[gpu])
    if step is None:
        return
    node, index = PLACES[gpu]
    before = data.draw(st.permutations(plans_of(held)))
    mine = {plan.role: plan for plan in before if (plan.node, plan.gpu) == (node.node, index)}
    others = [plan for plan in before if plan not in mine.values()]
    if step.turns is not None:  # as the head has them by then: who changes has its new role, and who ends comes last
        gone = mine.pop(step.turns)
        mine[role] = SlotPlan(gone.node, gone.slot, role, index)
    elif not step.ends:
        mine[role] = SlotPlan(node.node, f"gpu{index}-9", role, index)
    stay = [plan for one, plan in mine.items() if one not in step.ends]
    after = [*held[:gpu], step.after, *held[gpu + 1 :]]
    found = laid_out(after, [*others, *stay, *(mine[one] for one in step.ends)])
    assert set(found) == {*others, *stay}
