"""The control loop's mind: observation in, decisions out (DisagFusion's Algorithm 1, arXiv 2605.25550).

On a change of the work that requests bring, the predictor sets every stage's count and that tick ends there; otherwise
feedback moves one stage at a time. Roles change in seconds, nodes in minutes; the two are decided apart.
"""

from collections.abc import Mapping
from functools import partial
from typing import Final

import msgspec

from planner.domain import RequestClass, Role, Shape
from planner.run.allocate import Load, cover, least_cover, seat
from planner.run.config import PolicyConfig, Predict, RoleBounds
from planner.run.cooldown import MOST_BACKOFF, Cooldown, switches
from planner.run.decisions import Decision, Measured, Reason, SetCounts, WishNodes
from planner.run.delays import Delays
from planner.run.effects import LoadRole
from planner.run.feedback import Feedback
from planner.run.fleet import Bundle
from planner.run.fleetplan import ENOUGH, NodePlanner
from planner.run.load import WorkModel
from planner.run.memory import Memory
from planner.run.observe import Observation
from planner.run.placing import Beside, Roles, States, Step, fewer, more, refusal, step_of, step_s
from planner.run.rent import seating_of
from planner.run.rule import PublishedRule
from planner.run.seating import Seating
from planner.run.timings import Timings

GAIN: Final = 1.08  # a prediction must promise this much more throughput to be worth moving workers
COMFORT: Final = 1.4  # cover above which nobody waits and nothing is moved
ROUNDING: Final = 1e-6
BACKLOGS: Final = 3.0  # loads and drains in which a backlog should be worked off


class PolicyView(msgspec.Struct, frozen=True):
    """What the policy believes, for status and metrics. Rates in requests a second, delays in seconds."""

    rates: dict[str, float]
    mix: dict[str, dict[Shape, float]]
    corrections: dict[str, float]
    delays: dict[str, float]
    seconds: dict[str, dict[Shape, float]]  # measured, by role@accelerator
    cooldown_s: float
    cover: float


class Policy:
    """Call :meth:`decide` once an interval. State is what was learnt: rates, service times, delays, and the last decision."""

    def __init__(self, config: PolicyConfig, predict: Predict, memory: bytes | None = None) -> None:
        self.config = config
        self.timings = Timings(predict)
        self.work = WorkModel(config, self.timings)
        self.delays = Delays(config.load_s, config.launch_s)
        self._feedback = Feedback(config, self.work)
        self._rule = PublishedRule()
        self._nodes = NodePlanner(config)
        self._bounds = {bound.role: bound for bound in config.roles}
        self._counts: dict[Role, int] = {}
        self._seating: Seating | None = None  # where accelerators differ, or not everything runs everywhere
        self._settled = False  # every machine of the seating has been there
        self._held: WishNodes | None = None  # fewer nodes, once those that stay have all roles
        self._held_s = 0.0
        self._room_kept: dict[str, int] = {}
        self._limits: tuple[object, ...] | None = None
        self._changed: list[Role] = []
        self._cooldown = Cooldown(config.interval_s)
        self.beside = Beside(config)
        self._drift_s: float | None = None
        self._cover = 0.0
        self._resumed = False  # an earlier head's policy has laid out what is there
        if memory:
            self._restore(memory)

    def decide(self, seen: Observation, now: float) -> tuple[Decision, ...]:
        """What to do now. () mostly."""
        self._changed += self.work.learn(seen, now)
        for lapse in seen.lapses:
            self.delays.add(lapse)
        self._feedback.see(seen)
        if self.config.mode == "static":
            return ()
        bounds = self._present_bounds(seen.pinned)
        loads = self.work.loads(seen, now, self._clear_s())
        found = self._move(seen, bounds, loads, now)
        out: list[Decision] = [] if found is None else [found]
        if self._held is not None:
            out += self._let_go(seen, now)
        elif self.config.elastic:
            out += self._rent(seen, bounds, loads, now)
        return tuple(out)

    # --- roles ------------------------------------------------------------------------------------------------

    def _move(
        self, seen: Observation, bounds: dict[Role, RoleBounds], loads: list[Load], now: float
    ) -> SetCounts | None:
        """At most one change of counts a tick: what Algorithm 1 says."""
        room = self._room(seen)
        if room is not None and not any(room.values()):
            return None  # no machine yet
        wanted = {state.role: state.wanted for state in seen.roles}
        limits = (tuple(room.items()) if room is not None else None, tuple(bounds.items()), self._bundles())
        if limits != self._limits:
            return self._fit(seen, bounds, loads, room, limits, now)
        self._counts = self._counts or wanted
        if self.config.placed:
            self._changed.clear()
            return None
        if self.config.mode == "reactive":
            step = self._rule.step(seen, bounds, self._counts, _total(room), now)
            target = self._exactly(step[0], loads, room) if step is not None else None
            return self._set(target, step[1]) if step is not None and target is not None else None
        if not self._cooldown.over(now) or any(state.coming or state.draining for state in seen.roles):
            return None
        target = self._target(loads, bounds, room)
        found = self._predict(loads, target, room, now)
        if found is None and self.config.mode == "hybrid":
            step = self._feedback.up(seen, bounds, self._counts, _total(room), partial(self._cover_of, loads, room))
            if step is None and room is None:
                step = self._feedback.down(loads, bounds, self._counts, now)
            target = self._exactly(step[0], loads, room) if step is not None else None
            if step is not None and target is not None:
                found = self._act(target, step[1], now)
        return found

    def _fit(
        self,
        seen: Observation,
        bounds: dict[Role, RoleBounds],
        loads: list[Load],
        room: dict[str, int] | None,
        limits: tuple[object, ...],
        now: float,
    ) -> SetCounts | None:
        """The first tick, or nodes, bounds or pins are others than last time: place everybody anew."""
        first = self._limits is None
        wanted = {state.role: state.wanted for state in seen.roles}
        if first and self.config.seating is not None:
            self._seating, self._counts = self.config.seating, wanted
        machines_only = self._limits is None or limits[1:] == self._limits[1:]
        if room is not None and self._seating is not None and machines_only:
            stands = self._stands(room)
            if stands:
                self._settled, self._limits = True, limits
            if stands or self._awaited(seen, bounds, loads, room):
                return None
        self._limits = limits
        if self.config.mode == "reactive":
            self._counts = {role: _within(count, bounds[role]) for role, count in (self._counts or wanted).items()}
            if self._counts == wanted:
                return None
            target = self._exactly(self._counts, loads, room) or self._target(loads, bounds, room)
            return self._set(target, Reason("bounds", "within their bounds"))
        if first and (self._resumed or self.config.workload is None):
            self._counts = wanted  # laid out by an earlier head, or by somebody who knows more than one request tells
            return None
        target = self._target(loads, bounds, room)
        why = (
            Reason("start", "what the expected work needs") if first else Reason("room", "the room for workers changed")
        )
        if target.counts == wanted and (not self._typed(target) or target == self._seating):
            self._counts = target.counts
            return None
        return self._act(target, why, now)

    def _stands(self, room: dict[str, int]) -> bool:
        """Whether the machines are just those that everybody was seated on."""
        used = self._seating.gpus if self._seating is not None else {}
        return sum(room.values()) == sum(used.values()) and all(n <= room.get(name, 0) for name, n in used.items())

    def _awaited(
        self, seen: Observation, bounds: dict[Role, RoleBounds], loads: list[Load], room: dict[str, int]
    ) -> bool:
        """Whether to wait for machines that come and have everybody's seats: the rest does until then, or never did."""
        if self._seating is None:
            return False
        coming = {one.accelerator: one.coming for one in seen.rooms}
        used = self._seating.gpus
        short = {name: min(room.get(name, 0), count) for name, count in used.items()}
        spare = sum(room.values()) > sum(short.values())
        if spare or any(count - short[name] > coming.get(name, 0) for name, count in used.items()):
            return False
        if not self._settled:
            return True
        rest = seat(loads, bounds, short, self.config.fits, self._shared())
        return all(rest.counts.get(role, 0) for role in bounds) and least_cover(loads, rest.alone, rest.shared) >= 1

    def _predict(self, loads: list[Load], target: Seating, room: dict[str, int] | None, now: float) -> SetCounts | None:
        """Upon a change the predictor's counts, if they are worth the move; or when they have been for a while (drift)."""
        changed, self._changed = self._changed, []
        present = self._as_placed(room)
        self._cover = least_cover(loads, *present)
        after = least_cover(loads, target.alone, target.shared)
        counts = target.counts
        if counts == self._counts or self._cover >= COMFORT or after < GAIN * self._cover:
            self._drift_s = None
            return None
        numbers = {"cover_before": self._cover, "cover_after": after}
        if changed:
            names = ", ".join(str(role) for role in changed)
            return self._act(target, Reason("change", f"the work per request has changed ({names})", numbers), now)
        if self._drift_s is None:
            self._drift_s = now
        if now - self._drift_s < self._moving_s(counts):
            return None
        return self._act(target, Reason("drift", "rates and service times have moved on", numbers), now)

    def _act(self, target: Seating, why: Reason, now: float) -> SetCounts:
        """Set the counts, and work out when the next move may be."""
        counts = target.counts
        self._cooldown.moved(self._counts, counts, self._moving_s(counts), switches(self._counts, counts), now)
        self._drift_s = None
        return self._set(target, why)

    def _set(self, target: Seating, why: Reason) -> SetCounts:
        self._counts = (
            {**dict.fromkeys(self._bounds, 0), **target.counts} if self.config.fits is not None else target.counts
        )
        if not self._typed(target):
            self._seating = None
            return SetCounts(dict(self._counts), why)
        self._seating = target
        shared = {name: dict(bundles) for name, bundles in target.shared.items()}
        return SetCounts(dict(self._counts), why, target.workers, shared)

    def _typed(self, target: Seating) -> bool:
        """Whether it matters who is where."""
        return self.config.fits is not None or len(target.alone) > 1

    def _target(self, loads: list[Load], bounds: dict[Role, RoleBounds], room: dict[str, int] | None) -> Seating:
        """The predictor: a fixed room is shared out whole, else each role gets what its promise needs."""
        if room is None:
            return Seating({"": self.work.needed(loads, bounds)})
        return seat(loads, bounds, room, self.config.fits, self._shared())

    def _exactly(self, counts: Mapping[Role, int], loads: list[Load], room: dict[str, int] | None) -> Seating | None:
        """So many of each, where they do best; None: they do not all fit where they may run."""
        if room is None or (self.config.fits is None and len(room) < 2):
            return Seating({next(iter(room or {"": 0})): counts})
        exact = {role: RoleBounds(role, count, count) for role, count in counts.items()}
        found = seat(loads, exact, room, self.config.fits, self._shared())
        return found if all(found.counts.get(role, 0) == count for role, count in counts.items()) else None

    def _cover_of(self, loads: list[Load], room: dict[str, int] | None, counts: Mapping[Role, int]) -> float:
        """What the whole could carry with these counts; 0: they are not to be had."""
        target = self._exactly(counts, loads, room)
        return least_cover(loads, target.alone, target.shared) if target is not None else 0.0

    def _shared(self) -> Mapping[str, Mapping[Bundle, int]]:
        """The bundles that the machines were planned for."""
        if self._nodes.plan is not None:
            return seating_of(self._nodes.plan).shared
        rented = self.config.rented or self.config.seating
        return rented.shared if rented is not None else {}

    def _bundles(self) -> tuple[object, ...]:
        """What a new plan may change on the same machines: nothing where the dispatch policy says what is together."""
        if self.config.placed:
            return ()
        return tuple((name, tuple(bundles.items())) for name, bundles in self._shared().items())

    # --- roles, by the dispatch policy's orders ---

    @property
    def places(self) -> bool:
        """Whether the dispatch policy's orders are carried out."""
        return self.config.placed and self.config.mode != "static"

    def leeway(self, wanted: Mapping[Role, int], pinned: Mapping[Role, int]) -> tuple[frozenset[Role], frozenset[Role]]:
        """Roles that may have one worker more, and those that may have one less, by bounds and pins."""
        bounds = self._present_bounds(pinned)
        return more(bounds, wanted), fewer(bounds, wanted)

    def place(
        self, asked: LoadRole, kind: str, held: Roles, states: States, pinned: Mapping[Role, int], now: float
    ) -> SetCounts | str:
        """The counts with which a GPU of this type, that holds these roles, changes as asked (:func:`.placing.step_of`); or why
        it must not, or not now.

        Moves that are ordered cost what the loop's own do: the same cooldown, and nothing while somebody loads or drains.
        """
        step = step_of(asked, held) if self.places else None
        if step is None or not self._bounds.keys() >= held | {asked.role}:
            return "the order does not suit the GPU"
        if not self._cooldown.over(now):
            return "the cooldown is not over"
        why = refusal(asked, held, states, self._present_bounds(pinned), self.beside.on(kind))
        return why or self._turn(step, kind, states, asked.why, now)

    def withdraw(self, role: Role, kind: str, held: Roles, states: States, now: float) -> SetCounts | str:
        """The counts without a worker that was ordered onto a GPU with these roles and did not come up: not there again."""
        self.beside.failed(kind, held)
        step = Step(held, held - {role}, frozenset({role}))
        return self._turn(step, kind, states, f"{role} does not come up beside the others", now)

    def _turn(self, step: Step, kind: str, states: States, why: str, now: float) -> SetCounts | str:
        wanted = {state.role: state.wanted for state in states}
        seating = self._seating or (Seating({kind: wanted}) if self.config.fits is None else Seating())
        target = seating.turned(kind, step.before, step.after, tuple(self._bounds))
        if target is None:
            return "no GPU was to hold what this one does"
        self._counts, self._drift_s = wanted, None
        seconds = step_s(step, self.delays, self.work.seconds)
        self._cooldown.moved(wanted, target.counts, seconds, int(step.loads), now)
        return self._set(target, Reason("placement", why))

    # --- nodes ------------------------------------------------------------------------------------------------

    def _rent(
        self, seen: Observation, bounds: dict[Role, RoleBounds], present: list[Load], now: float
    ) -> list[Decision]:
        lead_s = self.delays.launch_s + max((self.delays.load_s(role) for role in bounds), default=0.0)
        loads = self.work.loads(seen, now, max(lead_s, self._clear_s()))
        need = self.work.needed(loads, bounds)
        there = {room.accelerator: room.up + room.coming for room in seen.rooms}
        placed = seat(loads, bounds, there, self.config.fits, self._shared())
        covers = cover(loads, placed.alone, placed.shared)
        fits = min(self._kept(loads, placed, need).values(), default=1.0)
        whole = min(covers.values(), default=1.0)
        fits = max(fits, 1.0) * ENOUGH if fits > 1 - ROUNDING else min(fits * ENOUGH, whole)
        busy = sum(load.least for load in loads)
        classes = self._classes(seen, now, lead_s)
        shapes = {(one.model, one.shape) for one in classes}
        measured = (Measured(*row) for row in self.timings.measured() if (row[0].model, row[2]) in shapes)
        found = self._nodes.step(seen, classes, busy, fits, now, lead_s, tuple(measured))
        return [one for decision in found for one in self._before(decision, seen, bounds, present, now)]

    def _kept(self, loads: list[Load], placed: Seating, need: Mapping[Role, int]) -> dict[Role, float]:
        """What there is of each role over what its promise needs, in workers on its quickest GPUs; of roles that are only
        together, together."""
        covers = cover(loads, placed.alone, placed.shared)
        least = {load.role: load.least for load in loads if load.least > 0}
        alone = {role for roles in placed.alone.values() for role, count in roles.items() if count}
        found = {role: covers[role] * least[role] / max(need[role], 1) for role in least if role in alone}
        for bundle in (bundle for bundles in placed.shared.values() for bundle in bundles):
            roles = [role for role in bundle if role in least]
            if roles:
                ratio = covers[roles[0]] * sum(least[role] for role in roles) / self.work.needed_together(loads, roles)
                found |= {role: ratio for role in roles if role not in alone}
        return {role: found.get(role, 0.0) for role in least}

    def _before(
        self, decision: Decision, seen: Observation, bounds: dict[Role, RoleBounds], loads: list[Load], now: float
    ) -> list[Decision]:
        """Counts that fit on the nodes that stay, and the others go once those are ready."""
        if not isinstance(decision, WishNodes):
            return [decision]
        wished = {wish.key: wish.count for wish in decision.wishes}
        room = {one.accelerator: 0 for one in seen.rooms}
        for node in seen.nodes:
            room[node.offer.accelerator] = room.get(node.offer.accelerator, 0) + node.offer.count * min(
                node.up, wished.get(node.key, 0)
            )
        up = {one.accelerator: one.up for one in seen.rooms}
        if self.config.mode == "reactive" or not any(room.values()) or all(room[n] >= up.get(n, 0) for n in room):
            return [decision]
        target = seat(loads, bounds, room, self.config.fits, self._shared())
        self._held, self._held_s, self._room_kept = decision, now, room
        why = Reason("room", "fewer nodes are wished for", {"gpus": float(sum(room.values()))})
        self._limits = (tuple(room.items()), tuple(bounds.items()), self._bundles())
        return [self._act(target, why, now)]

    def _let_go(self, seen: Observation, now: float) -> list[Decision]:
        """The nodes that are no longer wished for, once the others have everything."""
        moving = any(state.coming or state.draining for state in seen.roles)
        if self._held is None or (moving and now - self._held_s < MOST_BACKOFF * self._moving_s(self._counts)):
            return []
        if now - self._held_s < self.config.interval_s:
            return []
        decision, self._held = self._held, None
        return [decision]

    def _classes(self, seen: Observation, now: float, clear_s: float) -> tuple[RequestClass, ...]:
        waiting = self.work.waiting(seen)
        found = []
        for model in self.work.roles:
            rate = self.work.coming_per_s(model, now) + waiting[model] / max(clear_s, 1.0)
            slo = self.config.slo_p95_s.get(model)
            shares = self.work.shares(model).items()
            found += [RequestClass(model, shape, rate * share, slo) for shape, share in shares if rate * share > 0]
        return tuple(found)

    # --- small things -----------------------------------------------------------------------------------------

    def _present_bounds(self, pinned: Mapping[Role, int]) -> dict[Role, RoleBounds]:
        return {
            role: RoleBounds(role, pinned[role], pinned[role]) if role in pinned else b
            for role, b in self._bounds.items()
        }

    def _room(self, seen: Observation) -> dict[str, int] | None:
        """Workers there may be, by accelerator; None: only each role's own bounds say."""
        if self._held is not None:
            up = {room.accelerator: room.up for room in seen.rooms}
            return {name: min(count, up.get(name, 0)) for name, count in self._room_kept.items()}
        if seen.rooms or self.config.fits is not None:
            found = {room.accelerator: room.up for room in seen.rooms}
            for node in seen.nodes:  # that are about to go
                gone = node.offer.count * max(node.up - node.wished, 0)
                found[node.offer.accelerator] = max(found.get(node.offer.accelerator, 0) - gone, 0)
            return found
        return {"": self.config.max_workers} if self.config.max_workers is not None else None

    def _as_placed(
        self, room: dict[str, int] | None
    ) -> tuple[Mapping[str, Mapping[Role, float]], Mapping[str, Mapping[Bundle, int]]]:
        """The present counts; over several accelerators as they were given out, else in proportion."""
        if self._seating is not None:
            return self._seating.alone, self._seating.shared
        if room is None or len(room) < 2:
            return {next(iter(room or {"": 0})): self._counts}, {}
        total = max(sum(room.values()), 1)
        return {name: {role: n * size / total for role, n in self._counts.items()} for name, size in room.items()}, {}

    def _moving_s(self, counts: dict[Role, int]) -> float:
        """One worker's change of role: the longest drain of those that give, the longest load of those that take."""
        giving = [role for role, count in counts.items() if count < self._counts.get(role, 0)] or list(counts)
        taking = [role for role, count in counts.items() if count > self._counts.get(role, 0)] or list(counts)
        drain = max((self.delays.drain_s(role, self.work.seconds(role)) for role in giving), default=0.0)
        return drain + max((self.delays.load_s(role) for role in taking), default=0.0)

    def _clear_s(self) -> float:
        return max(BACKLOGS * self._moving_s(self._counts), 60.0)

    def view(self, now: float) -> PolicyView:
        """What is believed at the moment."""
        return PolicyView(
            rates={model: self.work.rate_per_s(model, now) for model in self.work.roles},
            mix={model: self.work.shares(model) for model in self.work.roles},
            corrections={f"{role}@{name}": value for (role, name), value in self.timings.corrections().items()},
            delays=self.delays.all(),
            seconds=self._measured(),
            cooldown_s=self._cooldown.left_s(now),
            cover=self._cover,
        )

    def _measured(self) -> dict[str, dict[Shape, float]]:
        found: dict[str, dict[Shape, float]] = {}
        for role, name, shape, seconds in self.timings.measured():
            if shape in self.work.shares(role.model):
                found.setdefault(f"{role}@{name}" if name else str(role), {})[shape] = seconds
        return found

    def memory(self) -> bytes:
        """What was learnt, for the store: a later head's policy begins with it. At most some tens of KiB."""
        return Memory(self.timings.dump(), self.delays.dump(), self.work.dump()).encode()

    def _restore(self, memory: bytes) -> None:
        kept = Memory.decode(memory)
        self.timings.load(kept.timings)
        self.work.expect(kept.rates)
        self._resumed = bool(kept.rates)
        for lapse in kept.lapses:
            self.delays.add(lapse)


def _total(room: dict[str, int] | None) -> int | None:
    return None if room is None else sum(room.values())


def _within(count: int, bound: RoleBounds) -> int:
    return min(max(count, bound.least), bound.most if bound.most is not None else count)
