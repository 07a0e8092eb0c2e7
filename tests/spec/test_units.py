import pytest
from hypothesis import given
from hypothesis import strategies as st

from disagctl.spec import units
from disagctl.spec.nodes import resolve


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("180s", 180),
        ("30m", 1800),
        ("7d", 604800),
        ("1h30m", 5400),
        ("250ms", 0.25),
        ("1 h", 3600),
        ("90", 90),
        ("2min", 120),
    ],
)
def test_durations(text: str, seconds: float) -> None:
    assert units.duration(text) == seconds


@pytest.mark.parametrize(("text", "rate"), [("12/min", 12), ("2/s", 120), ("30 / h", 0.5), ("0.5/hour", 0.5 / 60)])
def test_rates(text: str, rate: float) -> None:
    assert units.rate_per_min(text) == pytest.approx(rate)


@pytest.mark.parametrize(("text", "gib"), [("50", 50), ("50GiB", 50), ("512 MiB", 0.5), ("1TiB", 1024)])
def test_memory(text: str, gib: float) -> None:
    assert units.memory_gib(text) == gib


@pytest.mark.parametrize("unit", units.PARSERS)
@given(text=st.text(max_size=100))
def test_any_text_is_read_or_refused(unit: str, text: str) -> None:
    try:
        value = units.parse(unit, text)
    except ValueError:
        return
    assert units.parse(unit, str(units.show(unit, value))) == value


@given(st.floats(min_value=1e-3, max_value=3e8))
def test_quantities_read_back_exactly(value: float) -> None:
    assert units.duration(str(units.show("duration", value))) == value
    small = min(value, 6e7)
    assert units.rate_per_min(str(units.show("rate", small))) == small


def test_words_that_yaml_1_1_would_twist() -> None:
    assert [resolve(word) for word in ("no", "12:30", "0o17", "0x1F", "2024-01-01")] == [
        "no", "12:30", "0o17", "0x1F", "2024-01-01",
    ]  # fmt: skip
    assert [resolve(word) for word in ("true", "null", "~", "12", "1.5", "1e3", "")] == [
        True,
        None,
        None,
        12,
        1.5,
        1e3,
        None,
    ]
