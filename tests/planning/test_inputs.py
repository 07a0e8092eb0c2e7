"""From files to a request: what is read, what is refused and where."""

from collections.abc import Callable
from pathlib import Path

import pytest

from disagctl.errors import InfeasibleError, SpecError
from disagctl.planning import shipped
from disagctl.planning.catalogs import age, days_old, load_catalog
from disagctl.planning.gather import Inputs, gather
from disagctl.planning.names import network, speaks_of
from disagctl.planning.profiles import published
from disagctl.spec import load_spec
from planner.domain import Shape
from planner.facts import parse_gpus
from tests.planning.conftest import SPEC, Shop

ROOT = Path(__file__).parents[2]
WAN = ROOT / "examples" / "wan-shop.yaml"


def read(shop: Shop, text: str = SPEC) -> Inputs:
    shop.write(shop.spec, text)
    return gather(load_spec(shop.spec), shop.spec)


def test_the_shipped_facts_are_without_fault() -> None:
    gpus = parse_gpus(shipped.text(shipped.GPUS), shipped.GPUS)
    catalog = load_catalog(None, ())
    assert len(gpus) > 20
    assert len(catalog.offers) > 400
    assert all("times the median" in defect.message or "same offer" in defect.message for defect in catalog.defects)
    assert {offer.accelerator for offer in catalog.offers} <= {gpu.name for gpu in gpus}
    assert all(days_old(catalog.as_of(offer)) is not None for offer in catalog.offers)
    rows = published(gpus)
    assert len(rows) == shipped.text(shipped.PROFILES).count("\n") - 1
    assert all("http" in row.origin or "@" in row.origin for row in rows)
    assert {part for row in rows for part in row.stage.split("+")} == {"encode", "denoise", "decode"}


def test_the_example_needs_nothing_but_what_is_shipped() -> None:
    inputs = gather(load_spec(WAN), WAN)
    (model,) = inputs.request.models
    assert model.stages == ("encode", "denoise", "decode")
    assert [fact.model for fact in inputs.request.facts] == [model.name]
    assert {row.model for row in inputs.request.profiles} == {model.name}
    assert all(row.peak_gib > 0 for row in inputs.request.profiles)
    (only,) = inputs.request.workload.classes
    assert (only.shape, only.rate_per_s, only.p95_s) == (Shape(832, 480, 81, 50), 0.2, 180.0)
    assert not inputs.unknown


def test_a_request_from_files(shop: Shop) -> None:
    stages = "stages:\n  denoise: {resources: {accelerators: {h100: 2}, use_spot: true}, replicas: 2..4}\n"
    shop.write(shop.prices, shop.prices.read_text() + "acme,here,pair,H100,2,6.0,3.0,8\n")
    request = read(shop, SPEC + stages + "bundles: false\nbudget: {max_usd_per_hour: 9}\n").request
    assert request.max_usd_per_hour == 9
    assert not request.bundles
    assert request.infra == ("acme",)
    assert {offer.accelerator for offer in request.offers} == {"L4", "H100"}
    (rule,) = request.rules
    assert (rule.model, rule.stage, rule.accelerators, rule.spot) == ("painter", "denoise", ("H100",), True)
    assert (rule.replicas_min, rule.replicas_max, rule.max_gpus) == (2, 4, 2)


def test_a_stage_without_wishes_is_not_bound(shop: Shop) -> None:
    assert read(shop).request.rules == ()
    (rule,) = read(shop, SPEC + "stages: {decode: {resources: {accelerators: [L4, H100]}}}\n").request.rules
    assert (rule.replicas_min, rule.replicas_max, rule.spot, rule.max_gpus) == (0, None, None, None)


def test_a_trace_brings_its_own_rates(shop: Shop, tmp_path: Path) -> None:
    rows = "".join(f"{10 * i},512,512,1,20\n" for i in range(31))
    shop.write(tmp_path / "trace.csv", "arrival_s,width,height,frames,steps\n" + rows)
    head = SPEC.partition("workload:")[0]
    text = head + "workload: {trace: trace.csv}\ninfra: [acme]\ncatalog: prices.csv\nprofiles: timings.csv\n"
    workload = read(shop, text).request.workload
    (only,) = workload.classes
    assert only.rate_per_s == pytest.approx(0.1, rel=0.05)
    assert workload.cv2 == pytest.approx(0.0, abs=1e-9)


@pytest.mark.parametrize(
    ("written", "model_id", "same"),
    [
        ("Wan2.1-T2V-14B", "Wan-AI/Wan2.1-T2V-14B-Diffusers", True),
        ("Wan2.1-I2V-14B", "Wan-AI/Wan2.1-I2V-14B-720P-Diffusers", True),
        ("Qwen-Image", "Qwen/Qwen-Image-2512", True),
        ("FLUX.1-dev", "black-forest-labs/FLUX.1-dev", True),
        ("FLUX.1-dev", "black-forest-labs/FLUX.1-schnell", False),
        ("Wan2.1-T2V-1.3B", "Wan-AI/Wan2.1-T2V-14B-Diffusers", False),
        ("mine", "owner/other", True),
    ],
)
def test_models_by_many_names(written: str, model_id: str, same: bool) -> None:
    assert speaks_of(written, "mine", model_id) is same
    assert network(network(model_id)) == network(model_id)


def test_own_rows_replace_published_ones(shop: Shop, tmp_path: Path) -> None:
    mine = "model,stage,gpu,width,height,frames,steps,seconds,peak_gib,source\n"
    mine += "".join(
        f"Wan2.1-T2V-14B,{stage},L40S,832,480,81,50,9,9,measured\n" for stage in ("encode", "denoise", "decode")
    )
    path = shop.write(tmp_path / "mine.csv", mine)
    rows = gather(load_spec(WAN), WAN, profiles=path).request.profiles
    assert {(row.gpu, row.source) for row in rows} == {("L40S", "measured")}


@pytest.mark.parametrize(
    ("file", "old", "new", "where", "word"),
    [
        ("prices", "acme,here,big,H100,1,3.0", "acme,here,big,H100,1,-3.0", ":3", "price"),
        ("prices", "acme,here,big,H100,1,3.0", "acme,here,big,H100,1,nan", ":3", "finite"),
        ("prices", "H100", "HAL9000", ":3", "HAL9000"),
        ("prices", "region,", "", ":1", "region"),
        ("timings", "painter,denoise,L4,512,512,1,20,20,", "painter,denoise,L4,512,512,1,20,soon,", ":3", "soon"),
        ("timings", "painter,denoise,L4,512,512,1,20,20,", "painter,denoise,L4,512,512,1,20,inf,", ":3", "finite"),
        ("timings", "seconds,", "", ":1", "seconds"),
        ("timings", "measured", "dreamt", ":2", "dreamt"),
        ("spec", "rate: 6/min", "rate: 0/min", ":4", "rate"),
        ("spec", "infra: [acme]", "infra: [acmee]", ":7", "acme"),
        ("spec", "steps: 20", "frames: 1", ":5", "steps"),
        ("spec", "bundles", "bundles", "", ""),
    ],
)
def test_what_is_wrong_is_named_with_its_line(shop: Shop, file: str, old: str, new: str, where: str, word: str) -> None:
    if not where:
        text = SPEC + "stages: {denoise: {resources: {accelerators: H1000}}}\n"
        where, word = ":10", "H1000"
        shop.write(shop.spec, text)
    else:
        path = getattr(shop, file)
        shop.write(path, path.read_text().replace(old, new))
    with pytest.raises(SpecError) as caught:
        gather(load_spec(shop.spec), shop.spec)
    assert f"{where}: " in caught.value.what
    assert word in str(caught.value)


@pytest.mark.parametrize("content", ["", "\n\n", "cloud\n", "\x00\x01", "a,b\n1,2,3\n"])
def test_tables_that_are_none(shop: Shop, content: str) -> None:
    for path in (shop.prices, shop.timings):
        kept = path.read_text()
        path.write_text(content)
        with pytest.raises(SpecError, match=path.name):
            gather(load_spec(shop.spec, check_files=False), shop.spec) if path is shop.timings else load_catalog(
                str(path), ()
            )
        path.write_text(kept)
    shop.prices.write_bytes(b"cloud\n\xff\xfe\n")
    with pytest.raises(SpecError, match=r"prices\.csv:2: .*UTF-8"):
        load_catalog(str(shop.prices), ())


def test_a_place_without_prices(shop: Shop) -> None:
    with pytest.raises(SpecError, match=r"service\.yaml:7: .*no offers of slurm"):
        read(shop, SPEC.replace("[acme]", "slurm"))
    with pytest.raises(InfeasibleError, match="no offers of gcp"):
        read(shop, SPEC.replace("[acme]", "gcp"))


def test_a_model_of_which_nothing_is_known(shop: Shop) -> None:
    with pytest.raises(InfeasibleError) as caught:
        read(shop, SPEC.replace("acme/painter, name: painter", "acme/sculptor"))
    assert caught.value.error_code == "profile_first"
    assert "profile first" in str(caught.value)


@pytest.mark.parametrize(
    ("as_of", "least", "most"),
    [("2025", 300, 20_000), ("2026-01", 200, 20_000), ("soon", None, None), ("", None, None)],
)
def test_ages(as_of: str, least: int | None, most: int | None) -> None:
    days = days_old(as_of)
    if least is None:
        assert days is None
        assert age(as_of) == "?"
    else:
        assert days is not None
        assert least < days < (most or 0)
        assert age(as_of).endswith(("mo", "y"))


def test_a_files_date_is_its_age(shop: Shop) -> None:
    catalog = load_catalog(str(shop.prices), ())
    assert all(days_old(catalog.as_of(offer)) in {0, 1} for offer in catalog.offers)
    dated = PRICES_DATED.replace("DAY", "2020-02-03")
    shop.write(shop.prices, dated)
    catalog = load_catalog(str(shop.prices), ())
    assert {catalog.as_of(offer) for offer in catalog.offers} == {"2020-02-03"}


PRICES_DATED = """\
# ours
cloud,region,instance_type,accelerator,count,price,spot_price,max_nodes,as_of
slurm,room-2,node,L4,1,0.5,,8,DAY
"""


def test_a_stage_that_nobody_timed(shop: Shop) -> None:
    rows = [line for line in shop.timings.read_text().splitlines(keepends=True) if ",decode," not in line]
    shop.write(shop.timings, "".join(rows))
    with pytest.raises(InfeasibleError, match="no timing of decode") as caught:
        read(shop)
    assert caught.value.error_code == "profile_first"
    shop.write(shop.timings, "".join(rows).replace("encode", "draft").replace("denoise", "refine"))
    assert read(shop).request.models[0].stages == ("draft", "refine")  # a model with stages of its own


SIGNED = "\ufeff"


@pytest.mark.parametrize(
    ("change", "where", "word"),
    [
        (lambda t: "", 1, "empty"),
        (lambda t: "# nothing\n", 1, "empty"),
        (lambda t: t.splitlines()[0] + "\n", 1, "no rows"),
        (lambda t: t.replace(",", ";"), 1, "separated by ';'"),
        (lambda t: t.replace(",", "\t"), 1, "separated by"),
        (lambda t: t.replace("accelerator", "card"), 1, "missing column accelerator"),
        (lambda t: t.replace("max_nodes", "count"), 1, "twice"),
        (lambda t: t.replace("3.0", "nan"), 3, "finite"),
        (lambda t: t.replace("3.0", "-inf"), 3, "finite"),
        (lambda t: t.replace("3.0", "-3"), 3, "above 0"),
        (lambda t: t.replace("3.0", "0"), 3, "above 0"),
        (lambda t: t.replace("3.0", "$3"), 3, "not a number"),
        (lambda t: t.replace("3.0", "1e300"), 3, "cannot be meant"),
        (lambda t: t.replace("3.0", "1e-300"), 3, "cannot be meant"),
        (lambda t: t.replace("1.5,8", "1.5," + "9" * 30), 3, "cannot be meant"),
        (lambda t: t.replace("1.5,8", "1.5,2.5"), 3, "whole number"),
        (lambda t: t.replace("H100", "H1000"), 3, "unknown GPU 'H1000'"),
        (lambda t: t + "acme,here\n", 4, "accelerator is empty"),
        (lambda t: t + 'acme,"here\n', 4, "accelerator is empty"),
        (lambda t: t + "acme,here,x,L4,1,1,,,\n", 4, "9 cells under 8 columns"),
        (lambda t: t.splitlines()[0] + "\nacme,here,x,K80,1,1,,\n", 2, "no offer is left"),
        (lambda t: t.replace("max_nodes", "max_nodes,cpus").replace("1.5,8", "1.5,8,many"), 3, "cpus"),
    ],
)
def test_catalogs_that_are_refused(shop: Shop, change: Callable[[str], str], where: int, word: str) -> None:
    shop.write(shop.prices, change(shop.prices.read_text()))
    with pytest.raises(SpecError) as caught:
        read(shop)
    assert caught.value.what.startswith(f"{shop.prices}:{where}: ")
    assert word in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "change",
    [
        lambda t: SIGNED + t.replace("\n", "\r\n"),
        lambda t: "# ours\n\n" + t,
        lambda t: "".join(line + ",\n" for line in t.splitlines()),
        lambda t: t.replace(",", " , ").upper().replace("ACME", "acme").replace("HERE", "here"),
    ],
)
def test_catalogs_that_look_odd_and_are_fine(shop: Shop, change: Callable[[str], str]) -> None:
    shop.write(shop.prices, change(shop.prices.read_text()))
    assert len(read(shop).request.offers) == 3


def test_ten_megabytes_of_comments(shop: Shop) -> None:
    shop.write(shop.prices, shop.prices.read_text() + "# filler\n" * (10 << 20 >> 3))
    assert len(read(shop).request.offers) == 3


def test_what_the_shipped_prices_lack_is_said(shop: Shop) -> None:
    shop.write(shop.spec, SPEC.replace("[acme]", "gcp").replace("prices.csv", "shipped"))
    found = gather(load_spec(shop.spec), shop.spec)
    assert {offer.cloud for offer in found.request.offers} == {"gcp"}
    assert all(offer.usd_per_hour > 1 for offer in found.request.offers)  # accelerator and machine together
    assert any("without L4" in text for text in found.warnings)


@pytest.mark.parametrize(
    ("rows", "line", "word"),
    [
        ([], 1, "at least two arrivals"),
        (["1,512,512,1,20"] * 3, 1, "same moment"),
        (["1,512,512,1,20", "-1,512,512,1,20"], 3, "arrival_s"),
        (["1,512,512,1,20", "nan,512,512,1,20"], 3, "finite"),
        (["1,0,512,1,20", "2,512,512,1,20"], 2, "width"),
        (["1,512,512,1,2.5", "2,512,512,1,20"], 2, "whole number"),
    ],
)
def test_traces_that_are_refused(shop: Shop, tmp_path: Path, rows: list[str], line: int, word: str) -> None:
    trace = tmp_path / "trace.csv"
    shop.write(trace, "\n".join(["arrival_s,width,height,frames,steps", *rows]) + "\n")
    text = SPEC.replace("  rate: 6/min\n  shapes: [{size: 512x512, steps: 20}]\n", "  trace: trace.csv\n")
    with pytest.raises(SpecError) as caught:
        read(shop, text)
    assert caught.value.what.startswith(f"{trace}:{line}: ")
    assert word in str(caught.value)


def test_rows_of_the_users_own_prices_that_are_left_out_are_named(shop: Shop) -> None:
    shop.write(shop.prices, shop.prices.read_text() + "acme,here,half,L4,0.5,0.2,,8\n" * 5)
    said = [line for line in read(shop).warnings if "left out" in line]
    assert said[0].startswith(f"{shop.prices}:4: ")
    assert [line for line in said if "prices.csv" not in line] == [
        "2 more rows of the catalog are left out, in part or whole"
    ]
