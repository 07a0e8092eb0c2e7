"""A producer and a consumer of one service, on loopback, with keys of their own."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import zmq

from tests.transport.kit import Keys, Site


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    site = Site(tmp_path / "service", Keys.make())
    yield site
    site.close()


@pytest.fixture(scope="session", autouse=True)
def _warm_zmq() -> None:
    """pyzmq starts one thread per process for zero-copy sends, at the first of them: do it before anybody counts."""
    with zmq.Context() as ctx, ctx.socket(zmq.PAIR) as one, ctx.socket(zmq.PAIR) as two:
        one.bind("inproc://warm")
        two.connect("inproc://warm")
        one.send(bytearray(1 << 20), copy=False)
        two.recv()
