"""How well published timings are predicted when they are held out. ``python -m bench.plan_heldout``.

Each row is left out in turn, with every row of its stage, GPU and shape, and predicted from what is left: from rows of the
same stage, GPU and number of GPUs at other shapes; else from the roofline of the model's config; and, to show why it is never
done, from the same stage and shape on another GPU by the ratio of their peaks. Prints one JSON object a row, then a table.
"""

import json
import statistics
from collections import defaultdict
from collections.abc import Iterable, Iterator

import msgspec

from disagctl.planning import shipped
from planner.domain import Gpu, ModelFacts, Profile, Shape
from planner.facts import Book, parse_gpus, parse_profiles
from planner.facts.flops import facts_from_configs
from stages.models.cards import two_passes

SHAPES, ROOFLINE, PEAKS = (
    "same stage and GPU, other shapes",
    "roofline of the config",
    "another GPU, by peak (never done)",
)


def facts_of(profiles: Iterable[Profile]) -> list[ModelFacts]:
    """What the shipped configs say of the models and shapes of these rows."""
    configs = msgspec.json.decode(shipped.text(shipped.CONFIGS))
    shapes: dict[str, set[Shape]] = defaultdict(set)
    for row in profiles:
        shapes[row.model].add(row.shape)
    found: list[ModelFacts] = []
    for model, wanted in shapes.items():
        known = configs.get(model)
        made = facts_from_configs(known["index"], known["components"], sorted(wanted), model) if known else None
        if isinstance(made, ModelFacts):
            found.append(made)
    return found


def guided(rows: Iterable[Profile]) -> list[Profile]:
    """Rows that say nothing of guidance have their pipeline's own."""
    configs = msgspec.json.decode(shipped.text(shipped.CONFIGS))
    passes = {model: two_passes(str(known["index"].get("_class_name")), None) for model, known in configs.items()}
    change = msgspec.structs.replace
    return [change(row, shape=change(row.shape, guidance=passes.get(row.model, False))) for row in rows]


def predictions(
    row: Profile, rows: list[Profile], facts: list[ModelFacts], gpus: list[Gpu]
) -> Iterator[tuple[str, float]]:
    """(kind, predicted seconds) of a row from the others."""
    same = [
        one
        for one in rows
        if (one.model, one.stage, one.gpu, one.gpus, one.precision)
        == (row.model, row.stage, row.gpu, row.gpus, row.precision)
        and one.shape != row.shape
        and "+" not in row.stage  # what a bundle takes at other shapes is the sum of its stages'
    ]
    where = (row.model, row.stage, row.gpu, row.shape, row.gpus, row.precision)
    for kind, basis in ((SHAPES, same), (ROOFLINE, [])):
        found = Book(basis, facts, gpus).predict(*where) if basis or kind == ROOFLINE else None
        if found is not None:
            yield kind, found.seconds
    peak = {gpu.name: gpu.tflops for gpu in gpus}
    for one in rows:
        alike = (one.model, one.stage, one.shape, one.gpus, one.precision)
        if alike == (row.model, row.stage, row.shape, row.gpus, row.precision) and one.gpu != row.gpu:
            yield PEAKS, one.seconds * peak[one.gpu] / peak[row.gpu]


def main() -> None:
    """Entry point."""
    gpus = parse_gpus(shipped.text(shipped.GPUS), shipped.GPUS)
    raw, _ = parse_profiles(shipped.text(shipped.PROFILES), shipped.PROFILES, gpus, strict=False)
    facts = facts_of(guided(raw))
    rows, defects = parse_profiles(shipped.text(shipped.PROFILES), shipped.PROFILES, gpus, facts, strict=False)
    rows = guided(rows)
    refused = [defect for defect in defects if "dense peak" in defect.message]
    errors: dict[tuple[str, str], list[float]] = defaultdict(list)
    for row in rows:
        if row.source == "estimated":
            continue
        for kind, seconds in predictions(row, rows, facts, gpus):
            error = seconds / row.seconds - 1
            what = "whole pipelines" if "+" in row.stage else row.stage
            errors[kind, what].append(error)
            print(
                json.dumps(
                    {"row": row.origin.split(" ")[0], "model": row.model, "stage": row.stage, "gpu": row.gpu,
                     "gpus": row.gpus, "kind": kind, "seconds": row.seconds, "error": round(error, 3)}
                )
            )  # fmt: skip
    print(f"\n{len(rows)} rows, {len(refused)} refused for more than their GPU's peak", *refused, sep="\n")
    print(
        "\n| predicted from | of | rows | median error | 90 % are within | bias (median) |\n|---|---|---|---|---|---|"
    )
    for (kind, what), found in sorted(errors.items()):
        size = sorted(abs(error) for error in found)
        ninth = size[min(int(0.9 * len(size)), len(size) - 1)]
        print(
            f"| {kind} | {what} | {len(size)} | {statistics.median(size):.0%} | {ninth:.0%} | {statistics.median(found):+.0%} |"
        )


if __name__ == "__main__":
    main()
