"""Turns collected tables of prices, GPU figures and published timings into the ones in ``disagctl/data``.

    python -m bench.facts FOLDER        reads FOLDER/{gpu-prices,gpu-specs,published-profiles}.csv

Prints every row that was left out, with the reason, and how many there are of each. The rules are in disagctl/data/README.md.
"""

import csv
import re
import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path

HOSTS = Path(__file__).with_name("gcp-hosts.csv")
TARGET = Path(__file__).resolve().parent.parent / "disagctl" / "data"
PRICES = (
    "cloud", "region", "instance_type", "accelerator", "count", "price", "spot_price", "max_nodes", "cpus", "memory_gib",
    "as_of", "source",
)  # fmt: skip
PROFILES = (
    "model", "stage", "gpu", "width", "height", "frames", "steps", "seconds", "peak_gib", "source", "gpus", "precision",
    "batch", "weights_gib", "load_s", "error", "origin",
)  # fmt: skip
GPUS = {
    "H100": "H100", "H100 80GB": "H100", "H100 PCIe": "H100-PCIE", "H200": "H200", "H20": "H20", "RTX 4090": "RTX4090",
    "RTX 5090": "RTX5090", "A100 80GB": "A100-80GB", "A100-80GB": "A100-80GB", "A100-SXM4-80GB": "A100-80GB", "L40": "L40",
    "B200": "B200", "B300": "B300",
}  # fmt: skip
# Other weights for the same network take the same time.
NETWORKS = {
    "Wan2.1-I2V-14B-480P": "Wan2.1-I2V-14B", "Wan2.1-I2V-14B-720P": "Wan2.1-I2V-14B", "Qwen-Image-2512": "Qwen-Image",
}  # fmt: skip
STAGES = {"dit": "denoise", "vae_decode": "decode", "e2e": "encode+denoise+decode", "encoder_total": "encode"}
ENCODERS = ("text_encoder", "image_encoder", "vae_encode")
PRECISIONS = {"bf16": "bf16", "fp16": "fp16", "int8": "int8", "int8 DiT": "int8", "fp8": "fp8", "fp8 (modelopt)": "fp8"}
# Of the weights' files, as published, in GB.
WEIGHTS = {
    ("Wan2.1-T2V-14B", "denoise"): 28.0, ("Wan2.1-T2V-14B", "encode"): 9.4, ("Wan2.1-T2V-14B", "decode"): 0.2,
    ("Wan2.1-I2V-14B", "denoise"): 28.0, ("Wan2.1-I2V-14B", "encode"): 10.7, ("Wan2.1-I2V-14B", "decode"): 0.2,
    ("Qwen-Image", "denoise"): 40.9, ("Qwen-Image", "encode"): 16.6, ("Qwen-Image", "decode"): 0.3,
}  # fmt: skip
TWINS = {"Wan2.1-I2V-14B": "Wan2.1-T2V-14B"}
STAGE_ERROR, TOTAL_ERROR = 0.12, 0.46  # what leaving such rows out and predicting them was off by, at most
STACK_ERROR = 0.89  # diffusers over LightX2V, Wan2.1-I2V-14B on one H100, both published: 9.77 s over 5.18 s a step
UNLIKE_OURS = {
    "compile": "torch.compile", "no CFG": "another number of passes", "cfg1": "another number of passes",
    "cfg2": "another number of passes", "offload": "offloaded", "off card": "offloaded", "cache": "a cache skips steps",
    "vendor blog": "nobody's measurement", "user report": "nobody's measurement", "'about": "nobody's measurement",
    "approximately": "nobody's measurement", "quoted": "nobody's measurement", "maintainer-side": "nobody's measurement",
    "QPS=": "of a loaded service", "VAE patch": "another kind of parallelism", "rounded": "not exact",
    "but text says": "size unclear",
    "distilled": "other weights, other passes", "monolithic, N=": "offloaded", "disagg, N=": "offloaded",
}  # fmt: skip
Row = dict[str, str]


def main(folder: Path) -> None:
    left_out: Counter[str] = Counter()
    prices = list(priced(read(folder / "gpu-prices.csv"), left_out))
    write(TARGET / "gpu-prices.csv", PRICES, prices)
    write(TARGET / "gpu-specs.csv", None, read(folder / "gpu-specs.csv"))
    timed = list(timings(read(folder / "published-profiles.csv"), left_out))
    write(TARGET / "published-profiles.csv", PROFILES, timed)
    print(f"{len(prices)} prices, {len(timed)} timings; left out:")
    for reason, count in sorted(left_out.items()):
        print(f"{count:4} {reason}")


def priced(rows: list[Row], left_out: Counter[str]) -> Iterator[Row]:
    newest = {offer(row) for row in rows if "dated" in row["source_commit"]}
    hosts = {(row["instance_type"], row["region"]): row for row in read(HOSTS)}
    for row in rows:
        if "accelerator" in row["instance_type"]:
            row = with_host(row, hosts) or row
        spot = float(row["spot_price"] or 0)
        price = float(row["price"] or 0)
        if "accelerator" in row["instance_type"]:
            left_out["price: of the accelerator alone, without its host"] += 1
        elif not float(row["count"]).is_integer():
            left_out["price: of a fraction of a GPU"] += 1
        elif offer(row) in newest and "dated" not in row["source_commit"]:
            left_out["price: an older one of the same offer"] += 1
        else:
            if price and spot >= price:
                left_out["spot price: not below the price (the offer stays)"] += 1
                row["spot_price"] = ""
            source, as_of = provenance(row["source_commit"])
            yield row | {
                "max_nodes": "", "cpus": row["vcpus"], "memory_gib": row["mem_gb"], "as_of": as_of, "source": source,
            }  # fmt: skip


def with_host(row: Row, hosts: Mapping[tuple[str, str], Row]) -> Row | None:
    """GCP prices an accelerator apart from the machine that carries it: both together; None where the machine's is unknown."""
    name = row["instance_type"].partition(" ")[0]
    host = hosts.get((name, row["region"]))
    if host is None:
        return None
    sums = {key: f"{float(row[key]) + float(host[key]):.5f}" if row[key] else "" for key in ("price", "spot_price")}
    source = f"{row['source_commit'].partition(' (accelerator-only')[0]} + its host: {host['source']}"
    return (
        row
        | sums
        | {"instance_type": name, "vcpus": host["cpus"], "mem_gb": host["memory_gib"], "source_commit": source}
    )


def offer(row: Row) -> tuple[str, ...]:
    return row["cloud"], row["region"], row["instance_type"], row["accelerator"], row["count"]


def provenance(text: str) -> tuple[str, str]:
    """(source, as_of); the date is what the source says, a year or two where it says no more."""
    known = {"early 2026": "2026-01", "old: 2024/25": "2024", "dated 2026-09-25": "2026-09-25"}
    return text, next((date for sign, date in known.items() if sign in text), "2025")


def timings(rows: list[Row], left_out: Counter[str]) -> Iterator[Row]:
    kept: dict[tuple[str, ...], tuple[int, Row]] = {}
    for row in encoders(rows, left_out):
        reason = unusable(row)
        if reason:
            left_out[f"timing: {reason}"] += 1
            continue
        made = converted(row)
        key = tuple(
            made[name] for name in ("model", "stage", "gpu", "width", "height", "frames", "steps", "gpus", "precision")
        )
        rank = 2 * stack_rank(row) + ("disagg" in row["note"])
        if key in kept:
            left_out["timing: one stack was taken for each model"] += 1
        if key not in kept or rank > kept[key][0]:
            kept[key] = rank, made
    staged = {key[:1] + key[2:] for key in kept if key[1] == "denoise"}
    for key, (_, made) in kept.items():
        if key[1] == STAGES["e2e"] and key[:1] + key[2:] in staged:
            left_out["timing: a total where there are the stages'"] += 1  # often of another stack
        else:
            yield made
            if made["model"] in TWINS and made["stage"] == "denoise" and made["gpus"] != "1":
                yield carried(made)


def stack_rank(row: Row) -> int:
    """The stack with the most stages timed first: rows of one model must agree with each other."""
    if "LightX2V" in row["note"] or "LightX2V-BLOG" in row["source"]:
        return 2
    return int("Diffusers" in row["note"])


def carried(row: Row) -> Row:
    """The row for the network that is the same but for its inputs."""
    origin = (
        f"carried from {row['model']}, the same network but for its image input (FLOPs within 1 %): {row['origin']}"
    )
    return row | {"model": TWINS[row["model"]], "source": "estimated", "origin": origin}


def encoders(rows: list[Row], left_out: Counter[str]) -> Iterator[Row]:
    """The rows, with the encoders of one run added up: our encode stage is all of them."""
    sums: dict[tuple[str, ...], Row] = {}
    for row in rows:
        if row["stage"] not in ENCODERS:
            yield row
            continue
        key = tuple(
            row[name] for name in ("model", "gpu", "gpu_count", "resolution", "steps", "precision", "source", "note")
        )
        if key in sums:
            left_out["timing: added to the other encoders of the run"] += 1
            sums[key]["seconds"] = f"{float(sums[key]['seconds']) + float(row['seconds']):g}"
            sums[key]["stage"] += "+" + row["stage"]
        else:
            sums[key] = dict(row)
    yield from sums.values()


def unusable(row: Row) -> str:
    if not encoder(row) and row["stage"] not in STAGES:
        return "no stage's time"
    if row["gpu"] not in GPUS:
        return "GPU unclear or without a datasheet here"
    if not re.fullmatch(r"\d+x\d+( \(16:9\))?", row["resolution"]) or not row["frames"] or not row["steps"]:
        return "size, frames or steps not recorded"
    if row["precision"] not in PRECISIONS:
        return "precision or offloading that disagctl does not run"
    if not (row["seconds"] or row["per_step_seconds"]):
        return "no time"
    if "I2V" in row["model"] and row["stage"].startswith("text_encoder") and "vae_encode" not in row["stage"]:
        return "part of an encode stage"
    if "prompt " in row["note"] and "tokens" in row["note"]:
        return "size, frames or steps not recorded"
    return next((reason for sign, reason in UNLIKE_OURS.items() if sign in row["note"]), "")


def encoder(row: Row) -> bool:
    return row["stage"].split("+")[0] in ENCODERS


def converted(row: Row) -> Row:
    model = NETWORKS.get(row["model"], row["model"])
    stage = "encode" if encoder(row) else STAGES[row["stage"]]
    width, height = row["resolution"].split(" ")[0].split("x")
    seconds = row["seconds"] or f"{float(row['per_step_seconds']) * int(row['steps']):g}"
    weights = WEIGHTS.get((model, stage))
    return {
        "model": model, "stage": stage, "gpu": GPUS[row["gpu"]], "width": width, "height": height,
        "frames": row["frames"], "steps": row["steps"], "seconds": seconds, "peak_gib": row["peak_mem_gb"] or "0",
        "source": "published", "gpus": row["gpu_count"], "precision": PRECISIONS[row["precision"]], "batch": "1",
        "weights_gib": f"{weights * 1e9 / 2**30:.2f}" if weights else "", "load_s": "",
        "error": f"{error(row, stage)}",
        "origin": "; ".join(part for part in (row["source"], row["note"]) if part),
    }  # fmt: skip


def error(row: Row, stage: str) -> float:
    if row["stage"] == "e2e":
        return TOTAL_ERROR
    return STACK_ERROR if stage == "denoise" and stack_rank(row) == 2 else STAGE_ERROR


def read(path: Path) -> list[Row]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def write(path: Path, columns: tuple[str, ...] | None, rows: list[Row]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns or list(rows[0]), extrasaction="ignore", lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
