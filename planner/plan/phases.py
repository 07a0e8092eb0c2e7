"""Large programs with limits of diversity, in phases: which queues to open, then whole nodes for those, then the proof.

Half a queue costs half its fixed charge, and so the relaxation opens a little of many. Decided alone, with replicas and
nodes continuous, which queues are open takes a second or two, and most of the gap with it; what they then need takes as long.
That solution is where the program itself, narrowed to the cells that it uses, starts from.
"""

import msgspec

from planner.plan.build import Model
from planner.plan.highs import solve
from planner.plan.market import Market
from planner.plan.problem import Solution

SKETCH_GAP = 0.02  # of which queues to open
PHASE_S = 6.0  # solver time of one phase but the last
LEAST_S = 2.0  # … of that which finds the first plan, however late it is
TINY = 1e-6  # of a class: not worth a cell
FIRST = 0.75  # of the gap asked for, that of the nodes for those queues

Opened = dict[tuple[str, str, str], bool]  # queue → is it open?


def relaxed(model: Model, limit_s: float) -> Solution:
    """The program with nothing whole: hundredths of a second, and nearly always in the cells where the best plan is."""
    return solve(model.problem.relaxed(()), limit_s)


def sketch(model: Model, limit_s: float, gap: float = SKETCH_GAP) -> Solution:
    """The program with nothing whole but which queues are open."""
    return solve(model.problem.relaxed(set(model.opened.values())), min(limit_s, PHASE_S), gap)


def opened_by(model: Model, found: Solution) -> Opened:
    """Which queues a sketch opens."""
    return {queue: found.values[column] > 0.5 for queue, column in model.opened.items()}


def cells_of(model: Model, found: Solution) -> Market:
    """What is offered in the cells that a sketch (or relaxation) uses, and what runs elsewhere."""
    cells = {site.cell for site in model.sites if any(found.values[column] > TINY for column in site.flows.values())}
    market = model.market
    return Market(
        market.pools, tuple(tier for tier in market.tiers if market.pools[tier.pool].cell in cells or tier.running)
    )


def settle(model: Model, opened: Opened, limit_s: float, gap: float) -> Solution:
    """The program with exactly these queues open."""
    fixed = {column: float(opened.get(queue, False)) for queue, column in model.opened.items()}
    return solve(model.problem.fixed(fixed), max(min(limit_s, PHASE_S), LEAST_S), gap * FIRST)


def prove(model: Model, first: Solution, limit_s: float, gap: float, bound: float) -> Solution:
    """The program itself, from a solution of it. ``bound``: what is known of its optimum already, from a sketch."""
    found = solve(model.problem, limit_s, gap, presolve=False, start=first.values)
    known = max(bound, found.bound if found.values else 0.0)
    better = found.values and found.objective <= first.objective + 1e-9
    return against(found if better else first, known, gap)


def against(found: Solution, bound: float, gap: float) -> Solution:
    """A solution with its gap to a bound that was found otherwise, and whether that is what was asked for."""
    reached = max(found.objective - bound, 0.0) / found.objective if found.objective > 0 else 0.0
    return msgspec.structs.replace(found, gap=reached, status="optimal" if reached <= gap * 1.0001 else "time_limit")
