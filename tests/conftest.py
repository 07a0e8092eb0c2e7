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
