"""For all tests."""

import asyncio
from collections.abc import Iterator

import pytest
from hypothesis import settings

settings.register_profile("busy", deadline=None)  # how long an example takes is the machine's business, not the test's
settings.load_profile("busy")


@pytest.fixture(scope="session", autouse=True)
def _current_loop() -> Iterator[None]:
    """A current event loop that somebody closes.

    pytest-asyncio asks for the current loop before each async test and puts it back after; where there is none, asking makes
    one that nobody closes, and that is a warning, so an error.
    """
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    yield
    loop.close()
    asyncio.set_event_loop(None)


@pytest.fixture(autouse=True)
def _nobody_says_how_wide(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tables are as wide as they are in a pipe, whatever runs the tests: wrapped elsewhere, a sentence is not found."""
    monkeypatch.delenv("COLUMNS", raising=False)
