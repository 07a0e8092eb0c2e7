"""How weights may be held, as options of the plan: memory by format, time where nobody measured it, and who may choose."""

import pytest
from msgspec.structs import replace

from planner.domain import Gpu, ModelFacts, Offer, Profile, RequestClass, Shape, StageCost, StageFacts, Workload
from planner.facts import Book, memory, roofline
from planner.plan import ModelSpec, PlanRequest, StageRule
from planner.plan.options import enumerate_options
from planner.precision import FORMATS, OFFLOAD, RUNNABLE, of_bundle, of_stages, resolved, unfit

CLIP = Shape(832, 480, 81, 50, guidance=True)
CARDS = (
    Gpu("H100", 80, 79, 3350, 989, fp8_tflops=1979),
    Gpu("A10G", 24, 22, 600, 70),
    Gpu("T4", 16, 14.5, 320, 65, bf16=False),
)
TEXT = StageFacts("encode", "text", 5.7, 10.6, (StageCost(CLIP, 0.009),), linear_share=0.8, streamed_gib=2.7)
DENOISE = StageFacts(
    "denoise", "transformer", 14.3, 26.6, (StageCost(CLIP, 0.785, 0.893, 100, 0, 4.2),), linear_share=0.99, streamed_gib=1.7
)  # fmt: skip
DECODE = StageFacts("decode", "vae", 0.1, 0.5, (StageCost(CLIP, 0.27, 0, 1, 32.3, 6.0),))
FACTS = ModelFacts("wan", (TEXT, DENOISE, DECODE), "its config")


def row(**fields: object) -> Profile:
    made = Profile(
        "wan", "denoise", "H100", CLIP, 250.0, 32.0, "measured", weights_gib=26.6, error=0.05, origin="p.csv:2"
    )
    return replace(made, **fields)


def universe(*rules: StageRule, precisions: tuple[str, ...] = ("bf16",), profiles: tuple[Profile, ...] = ()):
    offers = tuple(Offer("c", "r", f"{card.name}.1", card.name, 1, False, 2.0) for card in CARDS)
    workload = Workload((RequestClass("wan", CLIP, 0.01),))
    spec = ModelSpec("wan", ("encode", "denoise", "decode"), precisions)
    request = PlanRequest(workload, offers, CARDS, (spec,), profiles, (FACTS,), rules=rules)
    return enumerate_options(request, Book(profiles, (FACTS,), CARDS))


def found(seen, bundle: str, gpu: str) -> dict[str, float]:
    """Precision → memory of the options of this bundle and card."""
    return {o.precision: o.served[0].peak_gib for o in seen.options if (o.bundle, o.gpu) == (bundle, gpu)}


# --- names ----------------------------------------------------------------------------------------------------------


def test_names() -> None:
    assert set(RUNNABLE) == {*FORMATS, *(f"{name}{OFFLOAD}" for name in FORMATS if name != "nf4")}
    assert of_stages("bf16", ("a", "b")) == {"a": "bf16", "b": "bf16"}
    assert of_stages("bf16/int8", ("a", "b")) == {"a": "bf16", "b": "int8"}
    assert of_bundle(("int8", "int8")) == "int8"
    assert of_bundle(("bf16", "int8+offload")) == "bf16/int8+offload"
    assert resolved("auto+offload", "fp16") == "fp16+offload"
    assert resolved("int8", "fp16") == "int8"
    assert unfit("int8", "decode")
    assert not any(unfit(name, "denoise") for name in (*RUNNABLE, "auto", "auto+offload"))


# --- memory ---------------------------------------------------------------------------------------------------------


def test_weights_follow_the_format() -> None:
    def share(stage: StageFacts, precision: str) -> float:
        return memory.weights_gib(stage, precision) / stage.weights_gib

    assert share(DENOISE, "bf16") == share(DENOISE, "fp16") == 1
    assert share(DENOISE, "fp32") == 2
    assert share(DENOISE, "int8") == share(DENOISE, "fp8") == pytest.approx(0.505)
    assert share(DENOISE, "nf4") == pytest.approx(0.01 + 0.99 * 0.28125)
    assert share(TEXT, "int8") == pytest.approx(0.6)  # a fifth is the vocabulary's table, which stays
    assert memory.weights_gib(DENOISE, "bf16+offload") == 1.7
    assert memory.weights_gib(DENOISE, "int8+offload") == pytest.approx(1.7 * 0.505)
    assert {memory.weights_gib(DECODE, name) for name in ("bf16", "int8", "nf4", "bf16+offload")} == {0.5}


# --- time -----------------------------------------------------------------------------------------------------------


def test_without_rows_the_time_is_that_of_16_bits_with_a_wider_band() -> None:
    for rows in ((), (row(),)):
        book = Book(rows, (FACTS,), CARDS)
        native = book.predict("wan", "denoise", "H100", CLIP)
        int8 = book.predict("wan", "denoise", "H100", CLIP, precision="int8")
        assert native is not None
        assert int8 is not None
        assert int8.seconds == native.seconds
        assert int8.error > native.error + 0.2
        assert int8.source == "estimated"
        assert "nobody has profiled int8" in int8.origin
        assert int8.peak_gib == pytest.approx(native.peak_gib - 26.6 * 0.495)


def test_rows_of_the_format_itself_count() -> None:
    book = Book((row(), row(seconds=300.0, precision="int8", peak_gib=19.0)), (FACTS,), CARDS)
    found = book.predict("wan", "denoise", "H100", CLIP, precision="int8")
    assert found is not None
    assert (found.seconds, found.peak_gib, found.source) == (300.0, 19.0, "measured")


def test_offloading_costs_what_the_copying_does_not_hide() -> None:
    card = CARDS[0]
    resident = roofline.seconds(DENOISE, DENOISE.costs[0], card)
    slow = roofline.offloaded(resident, DENOISE, DENOISE.costs[0], "bf16+offload")
    assert resident < slow < 1.2 * resident  # a pass computes for longer than its weights travel
    few = replace(DENOISE.costs[0], linear_pflop=0.05, attention_pflop=0.0)
    quick = roofline.seconds(DENOISE, few, card)
    assert roofline.offloaded(quick, DENOISE, few, "bf16+offload") > 5 * quick
    assert roofline.offloaded(quick, DENOISE, few, "int8+offload") < 0.6 * roofline.offloaded(
        quick, DENOISE, few, "bf16+offload"
    )


def test_published_offloaded_steps() -> None:
    """Qwen-Image-2512 on an RTX 4090, blocks streamed: 1.88 s a step without guidance, 3.76, 4.07 and 4.29 with it."""
    facts = StageFacts("denoise", "transformer", 20.4, 38.1)
    card = Gpu("RTX4090", 24, 23, 1008, 165.2)
    for width, height, pflop, passes, published in (
        (1664, 928, 0.113, 1, 1.88),
        (1664, 928, 0.113, 2, 3.76),
        (1328, 1328, 0.133, 2, 4.07),
        (1472, 1140, 0.125, 2, 4.29),
    ):
        cost = StageCost(Shape(width, height, 1, 1, passes > 1), pflop, 0.0, passes)
        resident = roofline.seconds(facts, cost, card)
        assert roofline.offloaded(resident, facts, cost, "bf16+offload") == pytest.approx(published, rel=0.12)


# --- options --------------------------------------------------------------------------------------------------------


def test_only_the_models_own_format_unless_the_spec_says_more() -> None:
    seen = universe()
    assert {option.precision for option in seen.options} == {"bf16"}
    assert not found(seen, "denoise", "A10G")
    assert "GiB" in seen.refused["wan", "denoise", "A10G"]


def test_smaller_formats_fit_smaller_cards() -> None:
    def on(gpu: str, *precisions: str) -> dict[str, float]:
        return found(universe(StageRule("wan", "denoise", precisions=precisions)), "denoise", gpu)

    assert set(on("A10G", "int8")) == {"int8"}
    assert on("A10G", "auto+offload")["bf16+offload"] < on("A10G", "nf4")["nf4"] < on("A10G", "int8")["int8"]
    assert set(on("H100", "fp8")) == {"fp8"}
    assert not on("A10G", "fp8")  # no such units on Ampere
    assert not on("T4", "int8")  # no bf16 to compute in
    assert set(found(universe(StageRule("wan", "denoise", precisions=("int8",))), "encode", "H100")) == {"bf16"}


def test_weights_are_squeezed_only_where_that_is_needed_or_quicker() -> None:
    rule = StageRule("wan", "denoise", precisions=("auto", "int8", "nf4"))
    assert set(found(universe(rule), "denoise", "H100")) == {"bf16"}
    assert set(found(universe(rule), "denoise", "A10G")) == {"int8"}
    quick = universe(rule, profiles=(row(), row(seconds=200.0, precision="int8", peak_gib=19.0)))
    assert set(found(quick, "denoise", "H100")) == {"bf16", "int8"}


def test_each_stage_of_a_bundle_as_its_own_rule_says() -> None:
    encode = StageRule("wan", "encode", precisions=("nf4",))
    sizes: dict[str, float] = {}
    for name in ("auto", "int8"):
        seen = universe(StageRule("wan", "denoise", precisions=(name,)), encode)
        sizes |= found(seen, "encode+denoise+decode", "H100")
        assert set(found(seen, "encode", "H100")) == {"nf4"}
    assert set(sizes) == {"nf4/bf16/bf16", "nf4/int8/bf16"}
    assert sizes["nf4/int8/bf16"] < sizes["nf4/bf16/bf16"]


def test_a_format_no_worker_runs_is_no_option() -> None:
    assert not found(universe(precisions=("int3",)), "denoise", "H100")
    assert not found(universe(precisions=("nf4+offload",)), "denoise", "H100")
