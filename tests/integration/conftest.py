"""Services shared by a module's tests: starting one takes a second, with real models many."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.integration.harness import SYNTHETIC, Service, service
from tests.tiny.fixtures import tiny_model

__all__ = ["tiny_model"]


@pytest.fixture(scope="module")
def synthetic(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """2:3:2 workers with tensors and files that are too large to travel inline."""
    text = SYNTHETIC.format(
        name="kills", encode_bytes=200_000, denoise_bytes=300_001, artifact_bytes=200_000, mode="auto"
    )
    with service(tmp_path_factory.mktemp("home"), text) as running:
        yield running


@pytest.fixture
def tiny_wan(tiny_model: Callable[[str], Path]) -> Path:
    """A tiny text-to-video model."""
    return tiny_model("wan")
