"""Plans of small worlds: reasons, alternatives, explanations, re-planning."""

import msgspec
import pytest

from planner.domain import Gpu, Offer, Profile, RequestClass, Shape, Workload
from planner.plan import (
    Egress,
    Infeasible,
    Plan,
    PlanRequest,
    Quota,
    Running,
    StageRule,
    check,
    diff,
    explain,
    plan,
    to_json,
)

SHAPE = Shape(512, 512, 1, 20)
GPUS = (Gpu("L4", 24, 22.5, 300, 121), Gpu("H100", 80, 79, 3350, 989))


def profiles(model="m", slow=1.0):
    times = {"encode": (0.5, 0.2, 10), "denoise": (20.0, 4.0, 18), "decode": (1.0, 0.4, 2)}
    return tuple(
        Profile(model, stage, gpu, SHAPE, seconds[at] * slow, seconds[2] + 2, "measured", weights_gib=seconds[2])
        for stage, seconds in times.items()
        for at, gpu in enumerate(("L4", "H100"))
    )


def offer(gpu="L4", usd=0.8, count=1, cap=20, cloud="aws", spot=False, region="us"):
    return Offer(cloud, region, f"{gpu}-{count}{'s' if spot else ''}", gpu, count, spot, usd, cap)


BOTH = (offer(), offer("H100", 3.0))


def request(rate=0.2, p95=60.0, offers=BOTH, **more):
    more.setdefault("profiles", profiles())
    return PlanRequest(Workload((RequestClass("m", SHAPE, rate, p95),)), tuple(offers), GPUS, **more)


def good(one, **more) -> Plan:
    answer = plan(one, 20, **more)
    assert isinstance(answer, Plan), answer
    assert check(one, answer) == []
    assert not [w for w in answer.warnings if "CHECK" in w]
    return answer


def bad(one) -> Infeasible:
    answer = plan(one, 20)
    assert isinstance(answer, Infeasible), answer
    return answer


def test_a_plan_carries_its_load_within_its_slo_and_travels():
    answer = good(request())
    assert answer.p95_s <= 60
    assert answer.throughput_per_min == pytest.approx(12)
    assert answer.capacity_per_min > 12
    assert sum(row.usd_per_hour for row in answer.rows) == pytest.approx(answer.usd_per_hour)
    assert msgspec.json.decode(msgspec.json.encode(answer), type=Plan) == answer
    assert msgspec.json.decode(msgspec.json.encode(request()), type=PlanRequest) == request()
    document = to_json(answer)
    assert document["feasible"] is True
    assert document["rows"][0]["routes"][0]["rate_per_min"] > 0
    assert to_json(bad(request(p95=1.0)))["feasible"] is False


def test_it_is_the_same_every_time():
    one, other = good(request()), good(request())
    assert one.rows == other.rows
    assert one.alternatives == other.alternatives


def test_no_alternative_is_cheaper():
    answer = good(request())
    assert {a.name for a in answer.alternatives} >= {
        "runner-up",
        "one GPU type",
        "whole pipeline, mixed GPU types",
        "every stage apart",
    }
    for one in answer.alternatives:
        assert one.why
        assert one.usd_per_hour is None or one.usd_per_hour >= answer.usd_per_hour - 1e-9


def test_bundles_never_cost_more():
    assert good(request()).usd_per_hour <= good(request(bundles=False)).usd_per_hour + 1e-9


@pytest.mark.parametrize(
    ("one", "kind", "constraint"),
    [
        (request(max_usd_per_hour=0.5), "over_budget", "budget"),
        (request(p95=2.0), "infeasible", "slo"),
        (request(offers=[offer(cap=1)]), "infeasible", "max_nodes"),
        (request(infra=("gcp",)), "infeasible", "infra"),
        (request(profiles=()), "no_profile", "profile"),
        (request(quotas=(Quota(0),), p95=None), "infeasible", "quota"),
        (request(offers=[offer("H100", 1, spot=True)], spot_share=0.5), "infeasible", "spot_share"),
        (request(rules=(StageRule("m", "denoise", replicas_max=1),), offers=[offer()], p95=None), "infeasible", "replicas"),
        (request(offers=[offer()], rules=(StageRule("m", "denoise", accelerators=("H100",)),)), "infeasible", "accelerators"),
    ],
)  # fmt: skip
def test_reasons(one, kind, constraint):
    answer = bad(one)
    assert (answer.kind, answer.constraint) == (kind, constraint)
    assert answer.why
    assert answer.relaxation or kind == "no_profile"


def test_memory_is_named():
    heavy = tuple(msgspec.structs.replace(p, peak_gib=200.0) for p in profiles())
    answer = bad(request(profiles=heavy))
    assert answer.constraint == "memory"
    assert "200.0 GiB" in answer.why


def test_the_smallest_number_of_nodes_is_asked_for():
    answer = bad(request(offers=[offer(cap=3)], p95=None))
    assert answer.constraint == "max_nodes"
    assert (
        "3 more of aws/us L4-1" in answer.relaxation
    )  # five for denoise (4 busy, 98 %), one for the rest; three there are


def test_explanations():
    one = request(offers=[offer("L4", 0.8), offer("H100", 30.0)])
    answer = good(one)
    assert explain(one, answer, "denoise", "L4").chosen
    told = explain(one, answer, "denoise", "H100")
    assert not told.chosen
    assert told.usd_per_hour is not None
    assert told.usd_per_hour > answer.usd_per_hour
    assert "no stage" in explain(one, answer, "upscale", "L4").verdict
    assert "no offer" in explain(one, answer, "denoise", "B200").verdict


def test_several_gpus_of_a_node_are_shared_between_stages():
    one = request(rate=0.1, p95=None, bundles=False, offers=[offer("L4", 4.0, count=8)])
    answer = good(one)
    assert len(answer.nodes) == 1
    assert answer.nodes[0].nodes == 1
    assert answer.usd_per_hour == pytest.approx(4.0)
    assert len(answer.rows) == 3


def test_one_cloud_for_all_stages_unless_allowed():
    rules = (StageRule("m", "denoise", accelerators=("H100",)), StageRule("m", "encode", accelerators=("L4",)))
    offers = [offer("L4", 0.5, cloud="aws"), offer("H100", 3.0, cloud="gcp"), offer("H100", 9.0, cloud="aws")]
    inside = good(request(offers=offers, rules=rules, p95=None))
    across = good(
        request(
            offers=offers, rules=rules, p95=None, cross_cloud=True, egress=(Egress("aws", 0.09), Egress("gcp", 0.12))
        )
    )
    assert {row.offer.cloud for row in inside.rows} == {"aws"}
    assert {row.offer.cloud for row in across.rows} == {"aws", "gcp"}
    assert across.usd_per_hour < inside.usd_per_hour
    assert across.egress_usd_per_hour > 0


def test_two_models_in_one_plan():
    classes = (RequestClass("m", SHAPE, 0.1, 60.0), RequestClass("v", SHAPE, 0.05, 120.0))
    one = PlanRequest(
        Workload(classes), (offer(), offer("H100", 3.0)), GPUS, profiles=profiles("m") + profiles("v", 1.5)
    )
    assert {row.model for row in good(one).rows} == {"m", "v"}


def test_what_runs_is_kept_unless_it_pays_to_change():
    dear, cheap = offer("L4", 0.80), offer("L4", 0.76, cloud="gcp")
    fresh = good(request(offers=[dear, cheap], p95=None))
    assert {one.offer.cloud for one in fresh.nodes} == {"gcp"}
    before = good(request(offers=[dear], p95=None))
    running = tuple(Running(one.offer, one.nodes) for one in before.nodes)
    after = good(request(offers=[dear, cheap], p95=None, running=running))
    assert diff(before, after).nodes == ()
    changed = diff(before, fresh)
    assert {change.offer.cloud for change in changed.nodes} == {"aws", "gcp"}
    assert changed.usd_per_hour_after < changed.usd_per_hour_before


def test_what_runs_gives_way_to_the_budget():
    dear, cheap = offer("L4", 0.80), offer("L4", 0.76, cloud="gcp")
    before = good(request(offers=[dear], p95=None))
    running = tuple(Running(one.offer, one.nodes) for one in before.nodes)
    fresh = good(request(offers=[dear, cheap], p95=None)).usd_per_hour
    tight = request(offers=[dear, cheap], p95=None, running=running, max_usd_per_hour=fresh + 0.01)
    assert good(tight).usd_per_hour == pytest.approx(fresh)
    too_tight = bad(msgspec.structs.replace(tight, max_usd_per_hour=fresh - 0.01))
    assert too_tight.kind == "over_budget"
    assert too_tight.usd_per_hour == pytest.approx(fresh)


def test_spot_and_pool_limits_hold():
    regions = [offer("L4", 0.3, spot=True, region=f"r{n}") for n in range(4)]
    one = request(offers=[offer(), *regions], spot_share=0.5, pool_share=0.25, p95=None)
    answer = good(one)
    assert any(n.offer.spot for n in answer.nodes)
    assert good(request(offers=[offer(), *regions], p95=None)).usd_per_hour < answer.usd_per_hour


def test_idle_on_demand_nodes_do_not_make_up_the_spot_share():
    """L4s are too slow to denoise: nodes of them without work would only pad the count of GPUs."""
    offers = (offer("H100", 1.0, spot=True), offer("H100", 3.0), offer("L4", 0.01, cap=50))
    answer = good(request(p95=20.0, offers=offers, spot_share=0.5, bundles=False))
    working = sum(row.replicas for row in answer.rows)
    assert sum(row.replicas for row in answer.rows if row.offer.spot) <= 0.5 * working
    assert all(one.gpus_idle == 0 for one in answer.nodes)
    assert all(row.routes for row in answer.rows)
