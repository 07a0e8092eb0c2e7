"""How much work there is: the rates and mixes of requests times the corrected service times, and whether they have changed."""

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from planner.domain import Role, Shape
from planner.facts import queueing
from planner.run.allocate import Load
from planner.run.change import Cusum
from planner.run.config import PolicyConfig, RoleBounds
from planner.run.forecast import BIN_S, Trend
from planner.run.observe import Observation
from planner.run.timings import Timings
from planner.run.traffic import ARRIVALS, Mix, Rate

MOST_UTILISATION: Final = 0.95
SLO_MARGIN: Final = 0.8  # of the objective that a prediction may use up
PRIOR_ARRIVALS: Final = 8.0  # that an expected rate is worth; forgotten once there are ARRIVALS
WATCHED: Final = 16  # requests of a model that the detectors look at in a tick
UNKNOWN_S: Final = 1.0  # of a stage that nothing is known of: all alike


class WorkModel:
    """Learns from observations; answers in Erlangs."""

    def __init__(self, config: PolicyConfig, timings: Timings) -> None:
        self.timings = timings
        self.roles: dict[str, list[Role]] = {}
        for bound in config.roles:
            self.roles.setdefault(bound.role.model, []).append(bound.role)
        self.rates = {model: Rate() for model in self.roles}
        self.mixes = {model: Mix() for model in self.roles}
        self.trends = {model: Trend(math.ceil(config.launch_s / BIN_S)) for model in self.roles}
        self._slo_s = config.slo_p95_s
        self._detectors = {bound.role: Cusum() for bound in config.roles}
        self._accelerators: tuple[str, ...] = ("",)
        self._may: dict[Role, tuple[str, ...]] | None = None
        if config.fits is not None:
            of_role = {
                b.role: [n for n, own in config.fits.items() if any(b.role in one for one in own)] for b in config.roles
            }
            self._may = {role: tuple(names) for role, names in of_role.items()}
        self._known: dict[tuple[Role, Shape], float] = {}  # of this tick, as are these:
        self._means: dict[Role, float] = {}
        self._prior: dict[str, dict[Shape, float]] = {}  # requests a second that are expected
        self.expect(
            (one.model, one.shape, one.rate_per_s) for one in (config.workload.classes if config.workload else ())
        )

    def expect(self, rates: Iterable[tuple[str, Shape, float]]) -> None:
        """Requests a second until some arrive; instead of what was expected so far."""
        fresh: dict[str, dict[Shape, float]] = {}
        for model, shape, rate in rates:
            fresh.setdefault(model, {})[shape] = rate
        self._prior = fresh or self._prior

    def dump(self) -> list[tuple[str, Shape, float]]:
        """What :meth:`expect` takes, of the present."""
        return [
            (model, shape, share * self.rates[model].weight)
            for model in self.roles
            for shape, share in self.mixes[model].shares().items()
        ]

    # --- learning ---------------------------------------------------------------------------------------------

    def learn(self, seen: Observation, now: float) -> list[Role]:
        """Take in what happened. The roles whose work per request has changed."""
        self._accelerators = tuple(room.accelerator for room in seen.rooms) or ("",)
        for done in seen.completions:
            self.timings.add(done)
        self._known.clear()
        self._means.clear()
        for arrival in seen.arrivals:
            if arrival.model in self.rates:
                self.rates[arrival.model].add(arrival.at_s)
        if seen.dropped and seen.arrivals and seen.arrivals[-1].model in self.rates:
            self.rates[seen.arrivals[-1].model].add(now, seen.dropped)
        for model, trend in self.trends.items():
            trend.at(now, sum(arrival.model == model for arrival in seen.arrivals))
        changed: list[Role] = []
        for model, roles in self.roles.items():
            heaviest = max(roles, key=self.seconds)
            changed += self._watch(model, [task.shape for task in seen.assigned if task.role == heaviest])
        self._means.clear()  # of the mix before
        return changed

    def _watch(self, model: str, shapes: Sequence[Shape]) -> list[Role]:
        """Of many requests at once the detectors see some, spread evenly: they need four, and a tick has its time."""
        step = max(1, -(-len(shapes) // WATCHED))
        changed: list[Role] = []
        for index in range(0, len(shapes), step):
            shape = shapes[index]
            self.mixes[model].add(shape, min(step, len(shapes) - index))
            began = {role: self._detectors[role].add(self._log_work(role, shape)) for role in self.roles[model]}
            found = [role for role, since in began.items() if since]
            if found:
                changed += found
                self.mixes[model].restart(max(began.values()) * step)
                for role in self.roles[model]:
                    self._detectors[role].restart()
        return changed

    def _log_work(self, role: Role, shape: Shape) -> float:
        """By the profiles where they speak, uncorrected: a better estimate of the same request is no change of the work."""
        known = [s for name in self._able(role) if (s := self.timings.profiled(role, name, shape)) is not None]
        return math.log(min(known) if known else self.of(role, shape))

    # --- answers ----------------------------------------------------------------------------------------------

    def shares(self, model: str) -> dict[Shape, float]:
        """Of the model's requests, by shape; what was expected until some came."""
        found = self.mixes[model].shares()
        if not found and model in self._prior:
            total = sum(self._prior[model].values())
            found = {shape: rate / total for shape, rate in self._prior[model].items()}
        return found

    def rate_per_s(self, model: str, now: float) -> float:
        """Requests a second, smoothed. What was expected counts as the first few arrivals."""
        expected = sum(self._prior.get(model, {}).values())
        seen = self.rates[model]
        if not expected or seen.begun_s is None:
            return seen.per_s(now) if seen.begun_s is not None else expected
        trust = 1.0 if seen.gaps >= ARRIVALS else seen.gaps / (seen.gaps + PRIOR_ARRIVALS)
        return expected + (seen.per_s(now) - expected) * trust

    def coming_per_s(self, model: str, now: float) -> float:
        """The rate that nodes are to be there for when they are: never less than now's."""
        return max(self.rate_per_s(model, now), self.trends[model].per_s() or 0.0)

    def of(self, role: Role, shape: Shape) -> float:
        """Seconds of one request on the quickest accelerator."""
        key = (role, shape)
        if key not in self._known:
            known = [s for name in self._able(role) if (s := self.timings.seconds(role, name, shape)) is not None]
            self._known[key] = min(known, default=UNKNOWN_S)
        return self._known[key]

    def seconds(self, role: Role) -> float:
        """Mean seconds of a request of the present mix on the quickest accelerator."""
        if role not in self._means:
            shares = self.shares(role.model)
            self._means[role] = (
                sum(share * self.of(role, shape) for shape, share in shares.items()) if shares else UNKNOWN_S
            )
        return self._means[role]

    def waiting(self, seen: Observation) -> dict[str, int]:
        """Requests of each model that nobody computes, in whichever queue."""
        found = dict.fromkeys(self.roles, 0)
        for state in seen.roles:
            if state.role.model in found:
                found[state.role.model] += state.queued + max(state.running - state.computing, 0)
        return found

    def loads(self, seen: Observation, now: float, clear_s: float) -> list[Load]:
        """By role, with the model's backlog worked off in ``clear_s`` besides.

        The whole backlog, for every stage: the queue before one stage alone says only where the last bottleneck was, and a
        fleet that chases it flaps.
        """
        waiting = self.waiting(seen)
        found: list[Load] = []
        for model, roles in self.roles.items():
            flow, shares = self.rate_per_s(model, now) + waiting[model] / clear_s, self.shares(model)
            found += [Load(role, self._erlangs(role, flow, shares)) for role in roles]
        return found

    def _erlangs(self, role: Role, flow: float, shares: Mapping[Shape, float]) -> dict[str, float]:
        on: dict[str, float] = {}
        able = self._able(role)
        for name in able:
            known = [(share, self.timings.seconds(role, name, shape)) for shape, share in shares.items()]
            if known and all(seconds is not None for _, seconds in known):
                on[name] = flow * sum(share * (seconds or 0.0) for share, seconds in known)
        return on or dict.fromkeys(able, flow * self.seconds(role))

    def _able(self, role: Role) -> tuple[str, ...]:
        """Accelerators that are there and that the role may run on; where there are none, all that it may run on."""
        if self._may is None:
            return self._accelerators
        may = self._may[role]
        return tuple(name for name in self._accelerators if name in may) or may

    # --- promises ---------------------------------------------------------------------------------------------

    def p95_s(self, loads: Iterable[Load], counts: Mapping[Role, int], model: str) -> float:
        """A request's, predicted: mean services and each queue's p95 wait one after the other, which errs on the safe side."""
        ca2 = self.rates[model].cv2()
        total = 0.0
        for load in loads:
            if load.role.model == model:
                mean = self.seconds(load.role)
                busy = load.least
                total += mean + queueing.wait_p95(counts.get(load.role, 0), busy, mean, ca2, self._cs2(load.role))
        return total

    def needed(self, loads: Sequence[Load], bounds: Mapping[Role, RoleBounds]) -> dict[Role, int]:
        """Fewest workers of each role that keep the model's promise: its slack shared out by service time."""
        found: dict[Role, int] = {}
        service: dict[str, float] = defaultdict(float)
        for load in loads:
            service[load.role.model] += self.seconds(load.role)
        for load in loads:
            role, busy = load.role, load.least
            mean = self.seconds(role)
            slo = self._slo_s.get(role.model)
            whole = service[role.model]
            slack = max(SLO_MARGIN * slo - whole, 0.1 * whole) if slo else whole
            allowed = slack * mean / whole if whole > 0 else 0.0
            most = bounds[role].most
            count = max(bounds[role].least, math.ceil(busy / MOST_UTILISATION))
            ca2, cs2 = self.rates[role.model].cv2(), self._cs2(role)
            while (most is None or count < most) and queueing.wait_p95(count, busy, mean, ca2, cs2) > allowed:
                count += max(1, count // 64)
            found[role] = count if most is None else min(count, most)
        return found

    def needed_together(self, loads: Sequence[Load], roles: Sequence[Role]) -> int:
        """Fewest GPUs that keep the model's promise where these roles of it share each, one after the other."""
        model = roles[0].model
        busy = sum(load.least for load in loads if load.role in roles)
        mean, whole = sum(map(self.seconds, roles)), sum(map(self.seconds, self.roles[model]))
        slo = self._slo_s.get(model)
        slack = max(SLO_MARGIN * slo - whole, 0.1 * whole) if slo else whole
        allowed = slack * mean / whole if whole > 0 else 0.0
        count = max(1, math.ceil(busy / MOST_UTILISATION))
        cs2 = max(map(self._cs2, roles))
        while queueing.wait_p95(count, busy, mean, self.rates[model].cv2(), cs2) > allowed:
            count += max(1, count // 64)
        return count

    def _cs2(self, role: Role) -> float:
        shares = self.shares(role.model)
        mean = self.seconds(role)
        if not shares or mean <= 0:
            return 0.0
        second = sum(share * self.of(role, shape) ** 2 for shape, share in shares.items())
        return max(second / mean**2 - 1, 0.0)
