"""HiGHS on a Problem, and CBC for when its answer does not stand up to checking."""

import warnings
from collections.abc import Sequence

import highspy
import numpy as np

from planner.plan.problem import Problem, Solution

_INFEASIBLE = (highspy.HighsModelStatus.kInfeasible, highspy.HighsModelStatus.kUnboundedOrInfeasible)


def solve(
    problem: Problem,
    time_limit_s: float,
    gap: float = 0.0,
    *,
    presolve: bool = True,
    start: Sequence[float] | None = None,
) -> Solution:
    """Minimise. Integers come back rounded. The same answer every time unless the time limit cuts it short.

    ``presolve``: HiGHS's own; the large, narrowed problems take half the time without it.
    ``start``: a solution to begin from; then none of the time goes to looking for a first one.
    """
    lp = highspy.HighsLp()
    lp.num_col_, lp.num_row_ = len(problem.cost), len(problem.lower)
    lp.col_cost_, lp.col_lower_, lp.col_upper_ = (
        np.array(part, dtype=float) for part in (problem.cost, problem.low, problem.high)
    )
    lp.row_lower_, lp.row_upper_ = np.array(problem.lower), np.array(problem.upper)
    lp.a_matrix_.format_ = highspy.MatrixFormat.kRowwise
    lp.a_matrix_.start_ = np.array(problem.starts, dtype=np.int32)
    lp.a_matrix_.index_ = np.array(problem.index, dtype=np.int32)
    lp.a_matrix_.value_ = np.array(problem.value)
    kinds = (highspy.HighsVarType.kContinuous, highspy.HighsVarType.kInteger)
    lp.integrality_ = [kinds[flag] for flag in problem.integer]
    highs = highspy.Highs()  # type: ignore[no-untyped-call]
    for name, value in (
        ("output_flag", False),
        ("time_limit", max(time_limit_s, 0.01)),
        ("mip_rel_gap", gap),
        ("mip_abs_gap", 1e-7),
        ("mip_feasibility_tolerance", 1e-7),
        ("primal_feasibility_tolerance", 1e-8),
        ("random_seed", 1),
        ("threads", 1),
        ("presolve", "choose" if presolve else "off"),
    ):
        highs.setOptionValue(name, value)
    highs.passModel(lp)
    if start is not None:
        highs.setOptionValue("mip_heuristic_effort", 0.0)
        highs.setOptionValue("mip_allow_restart", False)
        first = highspy.HighsSolution()
        first.col_value = list(start)
        highs.setSolution(first)
    highs.run()
    status, info, seconds = highs.getModelStatus(), highs.getInfo(), float(highs.getRunTime())
    if status in _INFEASIBLE:
        return Solution("infeasible", float("inf"), 0.0, seconds, [])
    if (
        status != highspy.HighsModelStatus.kOptimal
        and info.primal_solution_status != highspy.SolutionStatus.kSolutionStatusFeasible
    ):
        return Solution(
            "time_limit" if status == highspy.HighsModelStatus.kTimeLimit else "error", float("inf"), 1.0, seconds, []
        )
    values = np.array(highs.getSolution().col_value)
    whole = np.array(problem.integer)
    values[whole] = np.round(values[whole])
    reached = float(info.mip_gap) if any(problem.integer) else 0.0
    name = "optimal" if status == highspy.HighsModelStatus.kOptimal else "time_limit"
    return Solution(
        name, float(np.dot(problem.cost, values)), reached if np.isfinite(reached) else 1.0, seconds, values.tolist()
    )


def solve_cbc(problem: Problem, time_limit_s: float, gap: float = 0.0) -> Solution:
    """The same with PuLP's CBC, slower: the second opinion."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # PuLP 3's, about PuLP 4; both are what we may meet
        return _cbc(problem, time_limit_s, gap)


def _cbc(problem: Problem, time_limit_s: float, gap: float) -> Solution:
    import pulp

    model = pulp.LpProblem("plan", pulp.LpMinimize)
    variables = [
        pulp.LpVariable(
            f"v{at}", low, None if high == float("inf") else high, pulp.LpInteger if whole else pulp.LpContinuous
        )
        for at, (low, high, whole) in enumerate(zip(problem.low, problem.high, problem.integer, strict=True))
    ]
    model += pulp.lpSum(cost * v for cost, v in zip(problem.cost, variables, strict=True) if cost)
    for at, (lower, upper) in enumerate(zip(problem.lower, problem.upper, strict=True)):
        span = range(problem.starts[at], problem.starts[at + 1])
        total = pulp.lpSum(problem.value[i] * variables[problem.index[i]] for i in span)
        if lower == upper:
            model += total == lower
            continue
        if upper != float("inf"):
            model += total <= upper
        if lower != -float("inf"):
            model += total >= lower
    status = model.solve(pulp.PULP_CBC_CMD(msg=False, timeLimit=max(time_limit_s, 1.0), gapRel=gap, threads=1))
    seconds = float(model.solutionTime or 0.0)
    if pulp.LpStatus[status] == "Infeasible":
        return Solution("infeasible", float("inf"), 0.0, seconds, [], "cbc")
    values = [float(v.value() or 0.0) for v in variables]
    values = [float(round(v)) if whole else v for v, whole in zip(values, problem.integer, strict=True)]
    if problem.residual(np.array(values)) > 1e-5:
        return Solution("error", float("inf"), 1.0, seconds, [], "cbc")
    return Solution("optimal", float(np.dot(problem.cost, values)), gap, seconds, values, "cbc")
