"""On the shipped prices no simpler way to choose GPUs is cheaper than the plan."""

import pytest

from bench.plan_baselines import BASELINES, costs, request_of, slowed
from planner.plan import check, plan
from planner.plan.result import Plan


@pytest.mark.parametrize("workload", ["FLUX.1-dev 1024², 60/min", "Wan2.1-14B 480p, 12/min"])
@pytest.mark.parametrize("factor", [1.0, 1.3])
def test_no_baseline_is_cheaper(workload: str, factor: float) -> None:
    known = request_of(workload)
    request = slowed(known, {gpu.name: factor for gpu in known.gpus})
    answer = plan(request, 30)
    assert isinstance(answer, Plan)
    assert check(request, answer) == []
    found = costs(answer)
    mine = found["plan"]
    assert mine is not None
    assert {name for name in BASELINES if found[name] is not None} >= {"one GPU type"}
    assert [name for name in BASELINES if (found[name] or mine) < mine * (1 - 1e-9)] == []
