"""Taking down a service whose head has a machine to itself: nodes first, and nothing is called gone before somebody saw it."""

import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec
import pytest

from disagctl import clock
from disagctl.errors import TeardownError
from disagctl.headnode import seen, ssh, stop
from disagctl.provision.base import NodeHandle
from disagctl.state import ServicePaths, read_record
from disagctl.views import HeadView, NodeView, StatusView
from tests.headnode.kit import away

NODE = NodeView("n1", "sky", "aws/us-east-1 g6.xlarge L4:1", "up", 1.0, 0.8, wish="l4", provider_id="dis-1")


class Provider:
    """Of the head's machine. ``there``: it is listed."""

    period_s = 0.0

    def __init__(self) -> None:
        self.there = True
        self.released = 0

    async def list(self, known: Sequence[NodeHandle]) -> list[NodeHandle]:
        state = "up" if self.there else "gone"
        return [msgspec.structs.replace(handle, state=state) for handle in known]

    async def release(self, handle: NodeHandle) -> None:
        self.released += 1
        self.there = False


@pytest.fixture
def provider(monkeypatch: pytest.MonkeyPatch) -> Provider:
    """Instead of SkyPilot."""
    made = Provider()
    monkeypatch.setattr(stop, "provisioner", lambda _record: made)
    monkeypatch.setattr(ssh, "hang_up", lambda *_: None)
    return made


@pytest.fixture
def answer(monkeypatch: pytest.MonkeyPatch) -> Callable[[int, str], None]:
    """What ``disagctl down`` there ends with, and says."""

    def set_it(code: int, said: str) -> None:
        script = f"import sys; sys.stdout.write({said!r}); sys.exit({code})"
        monkeypatch.setattr(ssh, "command", lambda *_: [sys.executable, "-c", script])

    return set_it


def down(where: ServicePaths, *, discard: bool = False) -> list[Path]:
    record = read_record(where)
    return stop.down(where, record, where.root.parent / "results", discard=discard, say=lambda _line: None)


def see_a_node(where: ServicePaths) -> None:
    seen.remember(where, StatusView("shop", "ready", "", HeadView(1, "", "", 0.0), nodes=[NODE]))


def test_nodes_first_then_the_head_and_then_it_is_forgotten(provider: Provider, answer: Callable[..., None]) -> None:
    where = away()
    answer(0, '{"files": []}')
    assert down(where) == []
    assert provider.released == 1
    assert not where.root.exists()


def test_while_a_node_stays_so_does_the_head(provider: Provider, answer: Callable[..., None]) -> None:
    where = away()
    answer(7, "")
    with pytest.raises(TeardownError):
        down(where)
    assert provider.there
    assert where.record.exists()


def test_a_head_that_does_not_answer_is_kept_unless_told_otherwise(
    provider: Provider, answer: Callable[..., None]
) -> None:
    where = away()
    see_a_node(where)
    answer(ssh.SSH_FAILED, "")
    with pytest.raises(TeardownError, match="does not answer") as caught:
        down(where)
    assert "dis-1" in str(caught.value)
    assert provider.there
    with pytest.raises(TeardownError, match="dis-1"):
        down(where, discard=True)
    assert not provider.there


def test_nodes_of_a_lost_head_count_until_they_must_have_ended(
    provider: Provider, answer: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    where = away()
    see_a_node(where)
    answer(ssh.SSH_FAILED, "")
    provider.there = False
    for _ in range(2):
        with pytest.raises(TeardownError, match=r"dis-1.*may still run"):
            down(where)
    gone_at = read_record(where).head_gone_at
    assert gone_at is not None
    monkeypatch.setattr(clock, "wall_s", lambda: gone_at + 1800.0 + stop.MARGIN_S + 1.0)
    assert down(where) == []
    assert not where.root.exists()


def test_results_come_with_it(provider: Provider, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    where = away()
    (tmp_path / "a.png").write_bytes(b"a picture")
    listing = f'import sys; sys.stdout.write(\'{{"files": ["{tmp_path / "a.png"}"]}}\')'

    def command(_where: object, _head: object, module: str, *words: str) -> list[str]:
        if module == "disagctl.cli.main":
            return [sys.executable, "-c", listing]
        return [sys.executable, "-m", module, *words]

    monkeypatch.setattr(ssh, "command", command)
    (saved,) = down(where)
    assert saved.read_bytes() == b"a picture"
