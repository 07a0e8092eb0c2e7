"""Whatever is done to a spec, the answer is a Spec or a SpecError with file:line, and soon (RELIABILITY #18)."""

import random
import re
import time
from pathlib import Path

import pytest

from disagctl.errors import SpecError
from disagctl.spec import Spec, dump_spec, load_spec, parse_spec
from tests.spec.specs import FULL, MINIMAL, SYNTHETIC

LIMIT_S = 2.0
COUNT = 400  # python -m tests.spec.test_mutations 10000 tries more
SCRAPS = [
    "", "0", "-1", "1e308", "1e999", ".inf", ".nan", "null", "~", "true", "no", "[]", "{}", "[[[[", "{a: {b: ", "&a", "*a",
    "<<", "!!python/name:os.system", "!!binary aGk=", "? ", "- ", "|\n  x", ">", "'", '"', "\\", "\0", "\t", "\r", "\x85",
    "\u2028", "\ufeff", "é", "𐍈", "\ud7ff", "../../../../etc/passwd", "/" * 300, "9" * 400, "a" * 5000, "0x1F", "0o17",
    "12:30:45", "2024-01-01", "1..", "..1", "1..99999999999", "832x", "x480", "0x0", "1/0", "/min", "-5s", "5 parsecs",
    "%YAML 9.9\n---\n", "%TAG ! tag:x\n", "--- ", "... ", ": ", ": :", "#", "@", "`", "name", "model", "stages", "$ref",
    "~root/x", "~nobody_at_all/x", "s3://", "gs://x/../..", "10.0.0.0/99", "::1/129", "synthetic", "encode", "__class__",
]  # fmt: skip


def mutate(rng: random.Random, text: str) -> str:
    """Between one and six changes: characters, words, lines."""
    for _ in range(rng.randint(1, 6)):
        cut = rng.randrange(len(text) + 1)
        end = min(len(text), cut + rng.randint(0, 12))
        lines = text.split("\n")
        match rng.randrange(8):
            case 0:
                text = text[:cut] + rng.choice(SCRAPS) + text[cut:]
            case 1:
                text = text[:cut] + text[end:]
            case 2:
                text = text[:cut] + rng.choice(SCRAPS) + text[end:]
            case 3:
                lines.insert(rng.randrange(len(lines) + 1), rng.choice(lines))
                text = "\n".join(lines)
            case 4:
                rng.shuffle(lines)
                text = "\n".join(lines)
            case 5:
                words = re.findall(r"[A-Za-z_]+|[0-9.]+", text) or ["x"]
                text = text.replace(rng.choice(words), rng.choice([*words, *SCRAPS]), rng.choice([1, -1]))
            case 6:
                text = text[:cut] + chr(rng.choice([rng.randrange(0, 256), rng.randrange(0, 0xD800)])) + text[end:]
            case _:
                text = text[:cut] + text[cut:end] * rng.randint(2, 40) + text[end:]
    return text


def outcome(text: str) -> Spec | SpecError:
    started_s = time.process_time()
    try:
        result: Spec | SpecError = parse_spec(text, base=Path("/nonexistent"))
    except SpecError as err:
        result = err
    took_s = time.process_time() - started_s
    assert isinstance(result, Spec) or re.match(r"service\.yaml:\d+: \S", result.what), (text, str(result))
    assert took_s < LIMIT_S, (took_s, text)
    return result


def run(first: int, count: int) -> tuple[int, int]:
    good = bad = 0
    for seed in range(first, first + count):
        rng = random.Random(seed)
        result = outcome(mutate(rng, rng.choice([FULL, SYNTHETIC, MINIMAL])))
        if isinstance(result, Spec):
            good += 1
            assert outcome(dump_spec(result)) == result
        else:
            bad += 1
    return good, bad


def test_mutated_specs() -> None:
    good, bad = run(0, COUNT)
    assert good > COUNT // 100
    assert bad > COUNT // 2


BOMBS = {
    "laughs": "a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(f"b{i}: &b{i} [*a,*a,*a,*a,*a,*a,*a]\n" for i in range(99)),
    "brackets": "[" * 500_000,
    "braces": "{a: " * 200_000,
    "dashes": "- " * 400_000,
    "questions": "? " * 400_000,
    "commas": "a: [" + "1," * 500_000 + "]",
    "keys": "".join(f"k{i}: {{}}\n" for i in range(60_000)),
    "one word": "name: " + "x" * 1_000_000,
    "one number": "name: x\nmodel: a/b\nworkload: {rate: 1/s}\nbudget: {max_usd_total: " + "9" * 900_000 + "}",
    "one key": "x" * 1_000_000 + ": 1",
    "block": "name: |\n" + "  line\n" * 140_000,
    "escapes": 'name: "' + "\\x41" * 250_000 + '"',
    "quotes": "'" * 1_000_000,
    "comment": "#\n" * 500_000,
    "merge": "a: &a {x: 1}\nb:\n  <<: [*a, *a, *a]",
    "blank": " " * 1_000_000,
    "directives": "%YAML 1.1\n" * 90_000,
    "models": "name: x\nworkload: {rate: 1/s}\nmodels: [" + "synthetic, " * 19_000 + "]",
    "stages": "name: x\nmodel: a/b\nworkload: {rate: 1/s}\nstages: {"
    + "".join(f"d{i}: {{}}, " for i in range(9_000))
    + "}",
    "infra": "name: x\nmodel: a/b\nworkload: {rate: 1/s}\ninfra: [" + "aws, " * 19_000 + "zzz]",
}


@pytest.mark.parametrize("bomb", BOMBS)
def test_bombs(bomb: str) -> None:
    assert isinstance(outcome(BOMBS[bomb]), SpecError)


def test_ten_megabytes(tmp_path: Path) -> None:
    path = tmp_path / "service.yaml"
    path.write_text(MINIMAL + "# filler\n" * (10 << 20 >> 3))
    started_s = time.process_time()
    with pytest.raises(SpecError, match=r"service\.yaml:1: the spec is too large"):
        load_spec(path)
    assert time.process_time() - started_s < LIMIT_S


if __name__ == "__main__":
    import sys

    print(run(1_000_000, int(sys.argv[1])))
