"""From a request to the cheapest solution: which levels of caution are tried, and which of their solutions wins."""

import math
from collections.abc import Mapping

import msgspec
import numpy as np

from planner.facts.perf import Book
from planner.plan import phases
from planner.plan.build import Keep, Model, build, everything
from planner.plan.estimate import Outlook, outlook
from planner.plan.guess import guess
from planner.plan.highs import solve, solve_cbc
from planner.plan.level import SHARES, SLACKS, Level, Rules, fastest, rules_of
from planner.plan.market import Market, open_market, usable_offers
from planner.plan.options import Universe, enumerate_options
from planner.plan.problem import Solution
from planner.plan.prune import WINDOWS, Narrowed, prune, size_of
from planner.plan.request import PlanRequest

SMALL = 300  # pairs of class and site up to which every level is tried, and the gap is closed
FEW_TIERS = 40  # as many price tiers as a small problem may have
MEDIUM = 1000  # up to which every share is tried
LARGE = 5000  # beyond: pruned, one level at a time, 1 %
DIVERSE_S = 14.0  # solver time of one large program with limits of diversity, its proof included


class Found(msgspec.Struct):
    """A solution that stands: checked against its program and its p95."""

    model: Model
    solution: Solution
    outlook: Outlook
    usd_per_hour: float
    level: Level


class Scene(msgspec.Struct):
    """A request, opened. ``spent_s``: inside the solver so far, of ``limit_s``."""

    universe: Universe
    market: Market
    quick: Mapping[int, float]
    limit_s: float
    pairs: int
    book: Book
    spent_s: float = 0.0
    rounds: int = 0
    infeasible_levels: int = 0
    capped: bool = False  # the budget is a row of the program

    @property
    def left_s(self) -> float:
        """Seconds that the solver may still take."""
        return max(self.limit_s - self.spent_s, 0.05)

    @property
    def small(self) -> bool:
        """Whether every level is tried and the gap closed."""
        return self.pairs <= SMALL and len(self.market.tiers) <= FEW_TIERS

    @property
    def large(self) -> bool:
        """Whether it is narrowed first."""
        return self.pairs > LARGE

    @property
    def diverse(self) -> bool:
        """Whether the spot share or one pool's is limited."""
        request = self.universe.request
        return request.spot_share is not None or request.pool_share is not None

    def gap(self) -> float:
        """The gap to reach: 0 for small problems."""
        asked = self.universe.request.gap
        if asked is not None:
            return asked
        return 0.0 if self.small else 0.003 if self.pairs <= LARGE else 0.01


def open_scene(request: PlanRequest, limit_s: float) -> Scene:
    """Enumerate options and offers."""
    request = msgspec.structs.replace(request, offers=tuple(usable_offers(request)))
    book = Book(request.profiles, request.facts, request.gpus)
    universe, market = enumerate_options(request, book), open_market(request)
    gpus = {pool.gpu for pool in market.pools}
    quick = fastest(universe, [option for option in universe.options if option.gpu in gpus])
    return Scene(universe, market, quick, limit_s, size_of(universe, market), book)


def levels_of(scene: Scene, keep: Keep) -> list[tuple[float, Level]]:
    """(guessed cost, level), the most promising first; one when nothing has an SLO."""
    if all(item.p95_s is None for item in scene.universe.request.workload.classes):
        return [(0.0, Level(1.0, 1.0))]
    large = scene.large
    ranked = []
    for share in SHARES[::2] if large else SHARES:
        for slack in SLACKS[2:] if large else SLACKS:
            level = Level(share, slack)
            ranked.append((_promise(scene, rules_of(scene.universe, level, scene.quick), keep), level))
    return sorted([item for item in ranked if item[0] < math.inf] or ranked[:1])


def _promise(scene: Scene, rules: Rules, keep: Keep) -> float:
    """What a level may cost: a guess; with limits of diversity, of which that knows nothing, the program's relaxation."""
    guessed = guess(scene.universe, scene.market, rules, keep)
    if guessed == math.inf or not (scene.large and scene.diverse):
        return guessed
    narrowed = prune(scene.universe, scene.market, rules, keep, WINDOWS[0])
    model = build(scene.universe, narrowed.market, rules, keep, narrowed)
    return solve(model.problem.relaxed(()), scene.left_s).objective if isinstance(model, Model) else guessed


def _bolder(scene: Scene, ranked: list[tuple[float, Level]]) -> list[tuple[float, Level]]:
    """For large problems: the first share at less cautious slacks too, before the rest."""
    guessed, level = ranked[0]
    if not scene.large or not level.share < 1:
        return ranked
    return [*((guessed, Level(level.share, slack)) for slack in SLACKS[:2]), *ranked]


def search(scene: Scene, keep: Keep = everything, most: int | None = None) -> Found | None:
    """The cheapest solution over the levels whose p95 estimates hold.

    Small problems try all; larger ones leave out the more cautious levels of a share that has one that holds, and stop
    after some that hold.
    """
    best: Found | None = None
    tried: set[str] = set()
    shares: set[float] = set()  # of which a level holds
    allowed = most if most is not None else 30 if scene.pairs <= MEDIUM else 8
    patience = allowed if scene.pairs <= MEDIUM else 2 if not scene.large else 1
    for guessed, level in _bolder(scene, levels_of(scene, keep)):
        rules = rules_of(scene.universe, level, scene.quick)
        mark = repr((sorted(rules.limit_s.items()), sorted(rules.queues.items())))
        late = len(tried) >= allowed or len(shares) >= patience or scene.spent_s >= scene.limit_s
        hopeless = not scene.small and best is not None and (guessed > best.usd_per_hour or level.share in shares)
        if mark in tried or late or hopeless:
            continue
        tried.add(mark)
        found = attempt(scene, rules, level, keep)
        if found is not None:
            shares.add(level.share)
            if best is None or _total(found) < _total(best) - 1e-9:
                best = found
    return best


def _total(found: Found) -> float:
    return found.solution.objective


def attempt(scene: Scene, rules: Rules, level: Level, keep: Keep = everything) -> Found | None:
    """One program, solved and checked; None when it has no solution, or one whose p95 estimate breaks an SLO."""
    if scene.large and scene.diverse:
        found, solved = _in_phases(scene, rules, level, keep)
        if solved:
            return found
    model: Model | int = -1
    solution: Solution | None = None
    for window in WINDOWS if scene.large and not scene.diverse else ():
        if solution is None:
            narrowed = prune(scene.universe, scene.market, rules, keep, window)
            model = build(scene.universe, narrowed.market, rules, keep, narrowed, capped=scene.capped)
            solution = _solve(scene, model) if isinstance(model, Model) else None
    if solution is None:
        model = build(scene.universe, scene.market, rules, keep, capped=scene.capped)
        solution = _solve(scene, model) if isinstance(model, Model) else None
    if solution is None or not isinstance(model, Model):
        scene.infeasible_levels += 1
        return None
    return _found(model, solution, level)


def _in_phases(scene: Scene, rules: Rules, level: Level, keep: Keep) -> tuple[Found | None, bool]:
    """The same for large programs with limits of diversity (planner.plan.phases), within ``DIVERSE_S``; and whether it has
    a solution at all."""
    end_s = scene.spent_s + min(scene.left_s, DIVERSE_S)

    def build_on(market: Market, narrowed: Narrowed) -> Model | int:
        return build(scene.universe, market, rules, keep, narrowed, capped=scene.capped)

    def spent(solution: Solution) -> Solution:
        scene.spent_s += solution.seconds
        scene.rounds += 1
        return solution

    for window in WINDOWS:
        narrowed = prune(scene.universe, scene.market, rules, keep, window)
        model, opened, bound = build_on(narrowed.market, narrowed), None, 0.0
        for phase in (phases.relaxed, phases.sketch):
            if isinstance(model, Model):
                seen = spent(phase(model, end_s - scene.spent_s))
                opened, bound = (phases.opened_by(model, seen), seen.bound) if seen.values else (None, 0.0)
                model = build_on(phases.cells_of(model, seen), narrowed) if seen.values else model
        if not isinstance(model, Model) or opened is None:
            continue
        first = spent(phases.settle(model, opened, end_s - scene.spent_s, scene.gap()))
        if not first.values:
            continue
        found = _found(model, first, level)
        if found is None:
            return None, True
        proven = spent(phases.prove(model, first, end_s - scene.spent_s, scene.gap(), bound))
        settled = msgspec.structs.replace(found, solution=phases.against(first, proven.bound, scene.gap()))
        return _found(model, proven, level) or settled, True
    return None, False


def _found(model: Model, solution: Solution, level: Level) -> Found | None:
    """None when the p95 estimate breaks an SLO."""
    seen = outlook(model, solution.values)
    for k, item in enumerate(model.universe.request.workload.classes):
        if item.p95_s is not None and seen.p95_s[k] > item.p95_s:
            return None
    values = solution.values
    usd = sum(tier.usd_per_hour * values[column] for tier, column in zip(model.market.tiers, model.rent, strict=True))
    usd += sum(model.problem.cost[column] * values[column] for column in model.egress)
    return Found(model, solution, seen, usd, level)


def _solve(scene: Scene, model: Model) -> Solution | None:
    """HiGHS, and CBC when what it says breaks the program's own rows."""
    gap = scene.gap()
    solution = solve(model.problem, scene.left_s, gap, presolve=not scene.large)
    scene.spent_s += solution.seconds
    scene.rounds += 1
    if (solution.values and model.problem.residual(np.array(solution.values)) > 1e-5) or solution.status == "error":
        solution = solve_cbc(model.problem, scene.left_s, gap)
        scene.spent_s += solution.seconds
    return solution if solution.values else None
