"""A saved plan: read back, refused when broken, held against the spec and today's prices, planned onwards from."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from disagctl.errors import DisagctlError, InfeasibleError, OverBudgetError, SpecError, UsageError
from disagctl.planning.document import document as as_document
from disagctl.planning.document import plan_view
from disagctl.planning.gather import gather
from disagctl.planning.plan_file import SavedPlan, keep, kept, read_plan, seating
from disagctl.planning.saved import accept
from disagctl.spec import load_spec
from disagctl.state import paths
from planner.plan import Plan, plan
from tests.planning.conftest import SPEC, Cli, Shop

Document = dict[str, Any]


@pytest.fixture(scope="module")
def document(tmp_path_factory: pytest.TempPathFactory) -> str:
    """What ``plan -o json`` prints for the shop; solved once."""
    shop = Shop(tmp_path_factory.mktemp("shop"))
    inputs = gather(load_spec(shop.spec), shop.spec)
    made = plan(inputs.request, time_limit_s=10, alternatives=False)
    assert isinstance(made, Plan)
    return json.dumps(as_document(plan_view(inputs, made)), indent=2)


@pytest.fixture
def saved(document: str, shop: Shop, tmp_path: Path) -> Path:
    path = tmp_path / "plan.json"
    path.write_text(document)
    return path


def accepted(shop: Shop, path: Path) -> SavedPlan:
    return accept(path, load_spec(shop.spec), shop.spec)


def test_a_plan_holds_all_that_is_needed_to_start_it(shop: Shop, saved: Path) -> None:
    document = json.loads(saved.read_text())
    found = accepted(shop, saved)
    assert found.usd_per_hour == pytest.approx(document["usd_per_hour"])
    assert found.rent == pytest.approx(sum(one["usd_per_hour"] for one in document["nodes"]))
    assert {row.precision for row in found.rows} == {"bf16"}
    assert all(one.offer.launch_s == 300 for one in found.nodes)
    assert found.models[0].stages == ["encode", "denoise", "decode"]
    nodes = seating(found)
    assert len(nodes) == sum(one.nodes for one in found.nodes)
    for node in nodes:
        assert sum(seat.gpus for seat in node.seats) <= node.offer.count
    seats = [seat for node in nodes for seat in node.seats]
    assert len(seats) == sum(row.replicas for row in found.rows)
    assert {stage for seat in seats for stage in seat.stages} == {"encode", "denoise", "decode"}
    assert all(len(seat.precisions) == len(seat.stages) for seat in seats)


def with_row(**changes: Any) -> Callable[[Document], None]:
    return lambda document: document["rows"][0].update(changes)


def with_offer(**changes: Any) -> Callable[[Document], None]:
    return lambda document: document["rows"][0]["offer"].update(changes)


@pytest.mark.parametrize(
    "change",
    [
        lambda d: d.update(schema_version=9),
        lambda d: d.pop("rows") and d.update(rows={}),
        lambda d: d.update(rows=[1]),
        lambda d: d.pop("nodes"),
        lambda d: d["nodes"][0].update(nodes=0),
        lambda d: d.update(usd_per_hour=0.01),
        lambda d: d.update(usd_per_hour=-1),
        lambda d: d["models"][0].update(stages=["encode", "denoise", "upscale", "decode"]),
        lambda d: d["nodes"][0]["offer"].pop("usd_per_hour"),
        with_row(replicas=0),
        with_row(replicas=9999),
        with_row(replicas="two"),
        with_row(gpus_per_replica=65),
        with_row(stage=""),
        with_row(stage="denoise+denoise+upscale"),
        with_offer(cloud="elsewhere"),
        with_offer(count=99),
    ],
)
def test_broken_plans_are_refused(shop: Shop, saved: Path, change: Callable[[Document], Any]) -> None:
    document = json.loads(saved.read_text())
    change(document)
    saved.write_text(json.dumps(document))
    with pytest.raises(SpecError, match=r"plan\.json:1: ") as caught:
        accepted(shop, saved)
    assert caught.value.error_code == "plan_invalid"


def test_files_that_are_no_plans(shop: Shop, saved: Path) -> None:
    whole = saved.read_text()
    for text, line in (
        ("", 1),
        ("[]", 1),
        (whole[: len(whole) // 2], None),
        ('{\n"name": \n}', 3),
        ("\0", 1),
        ("[" * 100_000, 1),
    ):
        saved.write_text(text)
        with pytest.raises(SpecError) as caught:
            read_plan(saved)
        assert caught.value.what.startswith(f"{saved}:{line if line is not None else ''}")
    saved.unlink()
    with pytest.raises(SpecError, match="cannot read the plan"):
        read_plan(saved)
    saved.write_text("\ufeff" + whole.replace("\n", "\r\n"))
    assert accepted(shop, saved).rows


@pytest.mark.parametrize(
    ("old", "new", "error", "word"),
    [
        ("name: shop", "name: other", UsageError, "a plan of 'shop'"),
        ("name: painter", "name: sculptor", UsageError, "only one of them has"),
        ("rate: 6/min", "rate: 7/min", UsageError, "another workload"),
        ("{p95: 60s}", "{p95: 61s}", UsageError, "another workload"),
        ("infra: [acme]", "infra: [acme/there]", UsageError, "the spec's infra is acme/there"),
        ("profiles:", "bundles: false\nprofiles:", UsageError, "another bundles"),
        ("profiles:", "budget: {max_usd_per_hour: 0.1}\nprofiles:", OverBudgetError, "the budget is $0.10/h"),
    ],
)
def test_a_plan_of_another_wish(
    shop: Shop, saved: Path, old: str, new: str, error: type[DisagctlError], word: str
) -> None:
    shop.write(shop.spec, SPEC.replace(old, new))
    with pytest.raises(error) as caught:
        accepted(shop, saved)
    assert word in str(caught.value)


def repriced(shop: Shop, factor: float) -> None:
    lines = shop.prices.read_text().splitlines()
    rows = [line.split(",") for line in lines[1:]]
    for row in rows:
        row[5:7] = [f"{float(cell) * factor}" if cell else "" for cell in row[5:7]]
    shop.write(shop.prices, "\n".join([lines[0], *(",".join(row) for row in rows)]) + "\n")


def test_prices_of_today(shop: Shop, saved: Path) -> None:
    was = read_plan(saved).usd_per_hour
    repriced(shop, 1.04)
    assert accepted(shop, saved).usd_per_hour == pytest.approx(was * 1.04)
    repriced(shop, 1.02)  # 1.0608 of what was said
    with pytest.raises(OverBudgetError) as caught:
        accepted(shop, saved)
    assert caught.value.error_code == "price_rose"
    repriced(shop, 0.5)
    assert accepted(shop, saved).usd_per_hour < was


def test_offers_that_are_gone(shop: Shop, saved: Path) -> None:
    kept_prices = shop.prices.read_text()
    for text, word in ((kept_prices.replace("small", "tiny").replace("big", "vast"), "not offered any more"),
                       (kept_prices.replace(",8\n", ",0\n"), "has 0 nodes")):  # fmt: skip
        shop.write(shop.prices, text)
        with pytest.raises(InfeasibleError) as caught:
            accepted(shop, saved)
        assert caught.value.error_code == "offer_gone"
        assert word in str(caught.value)


def test_planning_onwards(shop: Shop, cli: Cli, saved: Path) -> None:
    code, out, _ = cli("plan", str(shop.spec), "--from", str(saved), "-o", "json")
    same = json.loads(out)["diff"]
    assert code == 0
    assert (same["nodes"], same["replicas"], same["penalty_usd_per_hour"]) == ([], [], 0.0)
    assert "runs so already" in cli("plan", str(shop.spec), "--from", str(saved))[1]
    shop.write(shop.spec, SPEC.replace("6/min", "60/min"))
    _, out, _ = cli("plan", str(shop.spec), "--from", str(saved), "-o", "json")
    more = json.loads(out)
    assert more["diff"]["usd_per_hour_before"] == pytest.approx(json.loads(saved.read_text())["usd_per_hour"])
    assert more["diff"]["usd_per_hour_after"] == pytest.approx(more["usd_per_hour"])
    assert all(one["before"] != one["after"] for one in more["diff"]["nodes"])
    started = sum(max(one["after"] - one["before"], 0) for one in more["diff"]["nodes"])
    assert started > 0
    assert more["diff"]["penalty_usd_per_hour"] > 0
    _, out, _ = cli("plan", str(shop.spec), "--from", str(saved))
    assert "changes  $" in out
    assert "+ start" in out
    assert cli("plan", str(shop.spec), "--from", "nowhere.json")[0] == 3


def test_what_runs_is_kept_when_another_is_hardly_cheaper(shop: Shop, cli: Cli, tmp_path: Path) -> None:
    shop.write(
        shop.prices,
        "cloud,region,instance_type,accelerator,count,price,spot_price,max_nodes\nacme,here,big,H100,1,3.0,,8\n",
    )
    _, out, _ = cli("plan", str(shop.spec), "-o", "json")
    before = shop.write(tmp_path / "before.json", out)
    shop.write(shop.prices, shop.prices.read_text() + "acme,there,new,H100,1,2.9,,8\n")
    _, out, _ = cli("plan", str(shop.spec), "--from", before, "-o", "json")
    assert json.loads(out)["diff"]["nodes"] == []
    _, out, _ = cli("plan", str(shop.spec), "-o", "json")
    assert {node["offer"]["region"] for node in json.loads(out)["nodes"]} == {"there"}


def test_a_live_services_plan_is_its_start(shop: Shop, cli: Cli, saved: Path) -> None:
    where = paths("shop")
    where.make()
    assert kept(where.root) is None
    keep(json.loads(saved.read_text()), where.root)
    assert kept(where.root) == read_plan(saved)
    _, out, _ = cli("plan", str(shop.spec), "-o", "json")
    assert "diff" not in json.loads(out)  # no record: it does not live
    where.record.write_text("{}")
    _, out, _ = cli("plan", str(shop.spec), "-o", "json")
    assert json.loads(out)["diff"]["nodes"] == []
