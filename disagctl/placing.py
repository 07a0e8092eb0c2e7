"""What a dispatch policy is shown of GPUs, and what becomes of its orders to load: for the control loop.

Who may order what is the loop's policy's to say (:mod:`planner.run.placing`). Here GPUs are told from processes: on rented
machines several may share one, and are shown as one; elsewhere each place for a worker stands by itself.
"""

import logging
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from disagctl.engine import Engine
from disagctl.load_watch import LoadWatch
from disagctl.roster import WorkerState
from planner.domain import Role
from planner.run.decisions import SetCounts
from planner.run.effects import LoadRole
from planner.run.fleet import UNKNOWN, SlotPlan
from planner.run.orders import Card
from planner.run.placing import Step, step_of
from planner.run.policy import Policy
from stages import protocol as wire

log = logging.getLogger(__name__)

Pins = Callable[[], Mapping[Role, int]]
NOTHING: Final[frozenset[Role]] = frozenset()


class Placing:
    """``pins``: what a person has set."""

    def __init__(self, watch: LoadWatch, policy: Policy, pins: Pins) -> None:
        self._watch, self._policy, self._pins = watch, policy, pins
        self._engine: Engine = watch.engine
        self._ordered: dict[tuple[str, str], frozenset[Role]] = {}  # place → what was to be on its GPU, until it is

    def cards(self) -> dict[str, Card]:
        """Of every worker the GPU that it is on. Nothing may be loaded while an earlier head's nodes have yet to report."""
        if not self._policy.places:
            return {}
        return {worker.id: card for card, some in self._all() for worker in some}

    def grant(self, asked: LoadRole, now: float) -> tuple[str, SetCounts] | None:
        """Have workers begin with what is ordered, if that may be: what is to be told of it, and the counts that follow."""
        found = next(((card, some) for card, some in self._all() if asked.worker in {one.id for one in some}), None)
        if found is None or not self._policy.places:
            return None
        card, some = found
        step = step_of(asked, card.roles)
        if step is None or asked.role not in card.open_to or not card.loose.issuperset(asked.drop):
            return None  # things have changed meanwhile: the policy is asked again
        kind = self._engine.roster.accelerator(some[0].node)
        granted = self._policy.place(asked, kind, card.roles, self._watch.roles(), self._pins(), now)
        if isinstance(granted, str):
            log.debug("%s on %s is not granted: %s", asked.role, card.name, granted)
            return None
        return self._begin(asked, step, some, now), granted

    def withdraw(self, now: float) -> tuple[str, SetCounts] | None:
        """End the first worker that was ordered beside others and cannot load: its GPU has less room than was thought, or it
        would fail anywhere. Others of its role, and the others there, go on."""
        for card, some in self._all() if self._ordered else ():
            for worker in some:
                asked_for = self._ordered.get((worker.node, worker.slot))
                if asked_for is None or worker.role is None or worker.id in self._engine.roster.draining:
                    continue
                if self._engine.ledger.takes(worker.id) == worker.role:
                    del self._ordered[worker.node, worker.slot]
                elif _failed(worker) and asked_for == card.roles:
                    return self._give_up(worker, card, now)
        return None

    def _give_up(self, worker: WorkerState, card: Card, now: float) -> tuple[str, SetCounts] | None:
        role, why = worker.role or UNKNOWN, worker.why
        del self._ordered[worker.node, worker.slot]
        if role not in self._policy.leeway(self._engine.roster.wanted, self._pins())[1]:
            return None
        kind = self._engine.roster.accelerator(worker.node)
        found = self._policy.withdraw(role, kind, card.roles, self._watch.roles(), now)
        if isinstance(found, str):
            return None
        self._end(worker, now)
        return f"{worker.id} ends: {role} does not come up beside the others: {why}", found

    # --- what is shown ----------------------------------------------------------------------------------------

    def _all(self) -> list[tuple[Card, list[WorkerState]]]:
        """Every GPU with its workers."""
        roster = self._engine.roster
        groups: dict[str, list[WorkerState]] = defaultdict(list)
        for worker in roster.workers.values():
            groups[self._place_of(worker)].append(worker)
        unfilled: dict[str, list[Role]] = defaultdict(list)
        for plan in roster.unfilled():
            unfilled[f"{plan.node}.gpu{plan.gpu}"].append(plan.role)
        more, fewer = self._policy.leeway(roster.wanted, self._pins())
        more = frozenset(role for role in more if not self._wide(role))
        kinds = {worker.node: roster.accelerator(worker.node) for worker in roster.workers.values()}
        able = {kind: self._able(more, kind) for kind in set(kinds.values())}
        return [
            (self._card(name, some, unfilled.get(name, ()), able[kinds[some[0].node]], fewer), some)
            for name, some in groups.items()
        ]

    def _able(self, more: frozenset[Role], kind: str) -> frozenset[Role]:
        """Those that may be on a GPU of the type at all."""
        together = self._policy.beside.on(kind)
        return frozenset(role for role in more if together is None or together.holds(frozenset((role,))))

    def _place_of(self, worker: WorkerState) -> str:
        """Names the GPU; where GPUs may be crowded anyway, or there are none, the worker's own place."""
        shared = self._engine.roster.bundles is not None and worker.gpu is not None
        return f"{worker.node}.gpu{worker.gpu}" if shared else worker.id

    def _card(
        self,
        name: str,
        some: Sequence[WorkerState],
        unfilled: Sequence[Role],
        able: frozenset[Role],
        fewer: frozenset[Role],
    ) -> Card:
        """``able``: what may come to such a GPU; ``fewer``: what may go, by bounds and pins."""
        engine = self._engine
        staying = [w for w in some if not w.doomed and w.id not in engine.roster.draining and w.role is not None]
        steady = {w.role for w in staying if w.role is not None and engine.ledger.takes(w.id) == w.role}
        roles = frozenset({w.role for w in staying if w.role is not None} | set(unfilled))
        together = self._policy.beside.on(engine.roster.accelerator(some[0].node))
        settled = len(steady) == len(roles) == len(some) and not unfilled and not engine.ledger.holding
        if not settled or any(self._wide(role) for role in roles):
            return Card(name, roles, roles - steady, together=together)
        idle = frozenset(w.role for w in some if w.role is not None and not engine.ledger.workers[w.id].leases)
        return Card(name, roles, NOTHING, able - roles, idle & fewer, together)

    def _wide(self, role: Role) -> bool:
        """Whether its workers have several GPUs that others could share: who is there is the plan's to say."""
        source = self._engine.sources.get(role)
        return self._engine.roster.bundles is not None and source is not None and source.ranks > 1

    # --- what is done -----------------------------------------------------------------------------------------

    def _begin(self, asked: LoadRole, step: Step, some: Sequence[WorkerState], now: float) -> str:
        """This GPU's workers, of all that have their roles: the counts alone would not say which."""
        by_role = {worker.role: worker for worker in some}
        if step.ends:
            going = [by_role[role] for role in asked.drop if role in step.ends]
            for worker in going:
                self._end(worker, now)
            return f"{', '.join(one.id for one in going)} makes room for {asked.role}: {asked.why}"
        if step.turns is not None:
            worker = by_role[step.turns]
            self._engine.become(worker, asked.role, now)
            worker.why = asked.why
            self._note(worker.node, worker.slot, step.after)
            return f"{worker.id}: {asked.role} instead of {step.turns}: {asked.why}"
        plan = self._seat(some[0], asked.role)
        self._note(plan.node, plan.slot, step.after)
        beside = " and ".join(str(role) for role in sorted(step.before, key=str))
        return f"{plan.node}.{plan.slot}: {asked.role} beside {beside}: {asked.why}"

    def _seat(self, beside: WorkerState, role: Role) -> SlotPlan:
        """A place on the worker's GPU that nobody has, for the plan to keep."""
        roster = self._engine.roster
        taken = {w.slot for w in roster.workers.values() if w.node == beside.node}
        taken |= {plan.slot for plan in roster.plans if plan.node == beside.node}
        first = f"gpu{beside.gpu}"
        slots = (first, *(f"{first}-{n}" for n in range(1, len(taken) + 1)))
        plan = SlotPlan(beside.node, next(slot for slot in slots if slot not in taken), role, beside.gpu)
        roster.plans = [*roster.plans, plan]
        return plan

    def _note(self, node: str, slot: str, together: frozenset[Role]) -> None:
        """Remember what was ordered until it has come up; one place more than there are is none of ours any more."""
        planned = {(plan.node, plan.slot) for plan in self._engine.roster.plans}
        self._ordered = {place: roles for place, roles in self._ordered.items() if place in planned}
        if len(together) > 1:
            self._ordered[node, slot] = together

    def _end(self, worker: WorkerState, now: float) -> None:
        """Have it finish and end, so that no other of its role is taken for it."""
        worker.retry_role_s = None
        self._engine.roster.draining[worker.id] = now
        self._engine.ledger.worker_draining(worker.id)
        self._engine.sender.send(worker.id, wire.Drain())


def _failed(worker: WorkerState) -> bool:
    """Whether it could not load its role, and waits until it is told to try again."""
    return worker.phase == "starting" and (worker.fatal or worker.retry_role_s is not None)
