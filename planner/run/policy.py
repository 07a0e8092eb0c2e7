"""The control loop's mind: observation in, decisions out (DisagFusion's Algorithm 1, arXiv 2605.25550).

On a change of the work that requests bring, the predictor sets every stage's count and that tick ends there; otherwise
feedback moves one stage at a time. Roles change in seconds, nodes in minutes; the two are decided apart.
"""

from collections.abc import Mapping
from typing import Final

import msgspec

from planner.domain import RequestClass, Role, Shape
from planner.run.allocate import Load, Placement, allocate, counts_of, least_cover
from planner.run.config import PolicyConfig, Predict, RoleBounds
from planner.run.decisions import Decision, Reason, SetCounts, WishNodes
from planner.run.delays import Delays
from planner.run.feedback import Feedback
from planner.run.fleetplan import NodePlanner
from planner.run.load import WorkModel
from planner.run.memory import Memory
from planner.run.observe import Observation
from planner.run.rule import PublishedRule
from planner.run.timings import Timings

GAIN: Final = 1.08  # a prediction must promise this much more throughput to be worth moving workers
MOVING_SHARE: Final = 0.1  # of the workers' time that may go into changing roles: with measured delays, the cooldown
COMFORT: Final = 1.4  # cover above which nobody waits and nothing is moved
MOST_BACKOFF: Final = 8.0
BACKLOGS: Final = 3.0  # loads and drains in which a backlog should be worked off


class PolicyView(msgspec.Struct, frozen=True):
    """What the policy believes, for status and metrics. Rates in requests a second, delays in seconds."""

    rates: dict[str, float]
    mix: dict[str, dict[Shape, float]]
    corrections: dict[str, float]
    delays: dict[str, float]
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
        self._placed: Placement = {}
        self._limits: tuple[object, ...] | None = None
        self._changed: list[Role] = []
        self._free_s = 0.0  # when the next move may be
        self._drift_s: float | None = None
        self._backoff = 1.0
        self._moved: dict[Role, int] = {}
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
        bounds = self._present_bounds(seen)
        loads = self.work.loads(seen, now, self._clear_s())
        found = self._move(seen, bounds, loads, now)
        out: list[Decision] = [] if found is None else [found]
        if self.config.elastic:
            out += self._rent(seen, bounds, now)
        return tuple(out)

    # --- roles ------------------------------------------------------------------------------------------------

    def _move(
        self, seen: Observation, bounds: dict[Role, RoleBounds], loads: list[Load], now: float
    ) -> SetCounts | None:
        """At most one change of counts a tick: what Algorithm 1 says."""
        room = self._room(seen)
        wanted = {state.role: state.wanted for state in seen.roles}
        limits = (tuple(room.items()) if room is not None else None, tuple(bounds.items()))
        if limits != self._limits:
            return self._fit(seen, bounds, loads, room, limits, now)
        self._counts = self._counts or wanted
        if self.config.mode == "reactive":
            step = self._rule.step(seen, bounds, self._counts, _total(room), now)
            return None if step is None else self._set(step[0], step[1])
        if now < self._free_s or any(state.coming or state.draining for state in seen.roles):
            return None
        target = self._target(loads, bounds, room)
        found = self._predict(loads, target, room, now)
        if found is None and self.config.mode == "hybrid":
            step = self._feedback.up(seen, loads, bounds, self._counts, _total(room))
            if step is None and room is None:
                step = self._feedback.down(loads, bounds, self._counts, now)
            if step is not None:
                found = self._act(step[0], {}, step[1], now)
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
        first, self._limits = self._limits is None, limits
        wanted = {state.role: state.wanted for state in seen.roles}
        if self.config.mode == "reactive":
            self._counts = {role: _within(count, bounds[role]) for role, count in (self._counts or wanted).items()}
            return None if self._counts == wanted else self._set(self._counts, Reason("bounds", "within their bounds"))
        if first and (self._resumed or self.config.workload is None):
            self._counts = wanted  # laid out by an earlier head, or by somebody who knows more than one request tells
            return None
        placed = self._target(loads, bounds, room)
        counts = counts_of(placed)
        why = (
            Reason("start", "what the expected work needs") if first else Reason("room", "the room for workers changed")
        )
        if counts == wanted and len(placed) < 2:
            self._counts = counts
            return None
        return self._act(counts, placed, why, now)

    def _predict(
        self, loads: list[Load], target: Placement, room: dict[str, int] | None, now: float
    ) -> SetCounts | None:
        """Upon a change the predictor's counts, if they are worth the move; or when they have been for a while (drift)."""
        changed, self._changed = self._changed, []
        present = self._as_placed(room)
        self._cover = least_cover(loads, present)
        after = least_cover(loads, target)
        counts = counts_of(target)
        if counts == self._counts or self._cover >= COMFORT or after < GAIN * self._cover:
            self._drift_s = None
            return None
        numbers = {"cover_before": self._cover, "cover_after": after}
        if changed:
            names = ", ".join(str(role) for role in changed)
            return self._act(
                counts, target, Reason("change", f"the work per request has changed ({names})", numbers), now
            )
        if self._drift_s is None:
            self._drift_s = now
        if now - self._drift_s < self._moving_s(counts):
            return None
        return self._act(counts, target, Reason("drift", "rates and service times have moved on", numbers), now)

    def _act(self, counts: dict[Role, int], placed: Placement, why: Reason, now: float) -> SetCounts:
        """Set the counts, and work out when the next move may be."""
        moved = {
            role: counts[role] - self._counts.get(role, 0)
            for role in counts
            if counts[role] != self._counts.get(role, 0)
        }
        undone = any(self._moved.get(role, 0) * by < 0 for role, by in moved.items())
        calm = now > self._free_s + 4 * self._moving_s(counts)
        self._backoff = min(self._backoff * 2, MOST_BACKOFF) if undone and not calm else max(self._backoff / 2, 1.0)
        moves = min(sum(max(by, 0) for by in moved.values()), sum(max(-by, 0) for by in moved.values()))  # switches
        seconds = self._moving_s(counts)
        share = moves * seconds / (max(sum(counts.values()), 1) * MOVING_SHARE)
        self._free_s = now + max(seconds + 2 * self.config.interval_s, share) * self._backoff
        self._moved, self._drift_s = moved, None
        return self._set(counts, why, placed if len(placed) > 1 else {})

    def _set(self, counts: dict[Role, int], why: Reason, by_gpu: Placement | None = None) -> SetCounts:
        self._counts, self._placed = dict(counts), by_gpu or {}
        return SetCounts(dict(counts), why, self._placed)

    def _target(self, loads: list[Load], bounds: dict[Role, RoleBounds], room: dict[str, int] | None) -> Placement:
        """The predictor: a fixed room is shared out whole, else each role gets what its promise needs."""
        if room is None:
            return {"": self.work.needed(loads, bounds)}
        return allocate(loads, bounds, room)

    # --- nodes ------------------------------------------------------------------------------------------------

    def _rent(self, seen: Observation, bounds: dict[Role, RoleBounds], now: float) -> list[Decision]:
        lead_s = self.delays.launch_s + max((self.delays.load_s(role) for role in bounds), default=0.0)
        loads = self.work.loads(seen, now, max(lead_s, self._clear_s()))
        need = self.work.needed(loads, bounds)
        there = {room.accelerator: room.up + room.coming for room in seen.rooms}
        placed = allocate(loads, bounds, there)
        have = counts_of(placed)
        fits = min((have.get(role, 0) / count for role, count in need.items() if count), default=1.0)
        fits = min(fits * 1.05, least_cover(loads, placed)) if fits < 1 else max(fits * 1.05, 1.05)
        busy = sum(min(load.on.values()) for load in loads)
        found = self._nodes.step(seen, self._classes(seen, now, lead_s), busy, fits, now, lead_s)
        return [one for decision in found for one in (*self._before(decision, seen, bounds, loads), decision)]

    def _before(
        self, decision: Decision, seen: Observation, bounds: dict[Role, RoleBounds], loads: list[Load]
    ) -> list[Decision]:
        """Counts that fit on the nodes that stay, ahead of letting the others go."""
        if not isinstance(decision, WishNodes):
            return []
        wished = {wish.key: wish.count for wish in decision.wishes}
        room = {one.accelerator: 0 for one in seen.rooms}
        for node in seen.nodes:
            room[node.offer.accelerator] = room.get(node.offer.accelerator, 0) + node.offer.count * min(
                node.up, wished.get(node.key, 0)
            )
        if sum(room.values()) >= sum(self._counts.values()) or self.config.mode == "reactive":
            return []
        placed = allocate(loads, bounds, room)
        why = Reason("room", "fewer nodes are wished for", {"room": float(sum(room.values()))})
        return [self._set(counts_of(placed), why, placed if len(placed) > 1 else {})]

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

    def _present_bounds(self, seen: Observation) -> dict[Role, RoleBounds]:
        pinned = seen.pinned
        return {
            role: RoleBounds(role, pinned[role], pinned[role]) if role in pinned else b
            for role, b in self._bounds.items()
        }

    def _room(self, seen: Observation) -> dict[str, int] | None:
        """Workers there may be, by accelerator; None: only each role's own bounds say."""
        if seen.rooms:
            return {room.accelerator: room.up for room in seen.rooms}
        return {"": self.config.max_workers} if self.config.max_workers is not None else None

    def _as_placed(self, room: dict[str, int] | None) -> Mapping[str, Mapping[Role, float]]:
        """The present counts; over several accelerators as they were given out, else in proportion."""
        if room is None or len(room) < 2:
            return {next(iter(room or {"": 0})): self._counts}
        if self._placed:
            return self._placed
        total = max(sum(room.values()), 1)
        return {name: {role: n * size / total for role, n in self._counts.items()} for name, size in room.items()}

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
            cooldown_s=max(self._free_s - now, 0.0),
            cover=self._cover,
        )

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
