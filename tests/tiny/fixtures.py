"""A pytest fixture: ``from tests.tiny.fixtures import tiny_model`` in a conftest, then ``tiny_model("flux")``."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.tiny import ensure


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Gives a family's repository, built once a test session (and shared by xdist's workers)."""
    base = tmp_path_factory.getbasetemp()
    shared = base.parent if base.name.startswith("popen-") else base
    return lambda family: ensure(shared / "tiny-models", family)
