"""generate, get, cancel, token, scale against a head that plays along, and one that does not."""

import json
from pathlib import Path

import msgspec
import pytest

from disagctl.views import JobError, JobView
from tests.cli.conftest import Cli
from tests.cli.fake_admin import PICTURE, FakeHead, job_view, progress

# httpcore leaves a socket that could not be connected to the garbage collector.
pytestmark = pytest.mark.filterwarnings("ignore:Exception ignored in. <socket:pytest.PytestUnraisableExceptionWarning")

JOB = job_view().id


def test_generate_saves_the_picture_and_prints_where(head: FakeHead, cli: Cli) -> None:
    code, out, err = cli(
        "generate", "demo", "a cat", "--seed", "7", "--size", "64x32", "--steps", "4", "--negative", "dog"
    )
    assert code == 0, err
    assert out == "demo-abababababab.png\n"
    assert Path("demo-abababababab.png").read_bytes() == PICTURE
    assert "denoise 3/4" in err or "denoise 1/4" in err or "denoise" in err
    sent = next(body for method, path, body in head.calls if (method, path) == ("POST", "/requests"))
    assert sent == {"prompt": "a cat", "seed": 7, "size": "64x32", "num_inference_steps": 4, "negative_prompt": "dog"}


def test_a_state_directory_with_a_very_long_path(home: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    """A Unix socket's address has room for 108 bytes."""
    deep = home / ("x" * 100) / ("y" * 100)
    deep.mkdir(parents=True)
    monkeypatch.setenv("DISAGCTL_HOME", str(deep))
    head = FakeHead(deep)
    try:
        assert cli("token", "demo")[:2] == (0, "s3cret\n")
    finally:
        head.stop()


def test_generate_several_to_a_named_file(head: FakeHead, cli: Cli, tmp_path: Path) -> None:
    head.life = progress(n=3)
    picture = tmp_path / "start.png"
    picture.write_bytes(b"png")
    code, out, _ = cli("generate", "demo", "x", "-n", "3", "-f", "out.png", "--image", str(picture))
    assert code == 0
    assert out.splitlines() == ["out-1.png", "out-2.png", "out-3.png"]
    assert all(Path(name).read_bytes() == PICTURE for name in out.splitlines())
    sent = next(body for method, path, body in head.calls if method == "POST")
    assert (sent["n"], sent["input_reference"]) == (3, "cG5n")


def test_generate_json(head: FakeHead, cli: Cli) -> None:
    code, out, _ = cli("generate", "demo", "x", "-o", "json")
    document = json.loads(out)
    assert code == 0
    assert document["schema_version"] == 1
    assert msgspec.convert(document["job"], JobView).status == "succeeded"
    assert document["files"] == ["demo-abababababab.png"]


def test_generate_no_wait_prints_the_id(head: FakeHead, cli: Cli) -> None:
    assert cli("generate", "demo", "x", "--no-wait")[:2] == (0, f"{JOB}\n")


def test_failed_and_cancelled(head: FakeHead, cli: Cli) -> None:
    head.life = progress("failed", error=JobError("dead_letter", "three workers crashed"))
    code, out, err = cli("generate", "demo", "x")
    assert (code, out) == (100, "")
    assert err.splitlines()[-1] == f"error[dead_letter]: request {JOB} failed — three workers crashed"
    code, out, _ = cli("generate", "demo", "x", "-o", "json")
    assert code == 100
    assert json.loads(out)["job"]["error"]["code"] == "dead_letter"
    head.life = progress("cancelled")
    assert cli("generate", "demo", "x")[0] == 103
    assert not list(Path().glob("*.png"))


@pytest.mark.parametrize(
    ("status", "code", "exit_code"),
    [(400, "invalid_value", 2), (404, "not_found", 2), (409, "idempotency_conflict", 2), (429, "queue_full", 4),
     (503, "stopping", 9), (507, "storage_full", 4), (500, "internal", 1)],
)  # fmt: skip
def test_refusals(status: int, code: str, exit_code: int, head: FakeHead, cli: Cli) -> None:
    head.answers["POST /requests"] = (status, {"error": {"message": "no", "type": "t", "code": code, "param": "size"}})
    got, _, err = cli("generate", "demo", "x")
    assert got == exit_code
    again = " — try again in 12 s" if status == 429 else ""
    assert err == f"error[{code}]: no{again}\n"


def test_answers_that_make_no_sense(head: FakeHead, cli: Cli) -> None:
    head.answers["POST /requests"] = (200, ["?"])
    assert cli("generate", "demo", "x")[0] == 1
    head.answers["POST /requests"] = (502, "?")
    assert "error[bad_answer]: the head answered 502" in cli("generate", "demo", "x")[2]


def test_a_picture_that_is_not_what_was_made(head: FakeHead, cli: Cli) -> None:
    head.picture = PICTURE[:-1] + b"!"
    code, _, err = cli("generate", "demo", "x")
    assert code == 1
    assert "error[corrupt]" in err
    assert list(Path().glob("*.png")) == []
    assert list(Path().glob(".*.png*")) == []


def test_without_a_head(head: FakeHead, cli: Cli) -> None:
    head.stop()
    for args in (["generate", "demo", "x"], ["get", JOB], ["cancel", JOB], ["token", "demo"], ["scale", "demo", "a=1"]):
        code, _, err = cli(*args)
        assert (code, "error[head_down]" in err) == (9, True), err


def test_get(head: FakeHead, cli: Cli) -> None:
    code, out, _ = cli("get", JOB)
    assert code == 0
    assert "succeeded" in out
    assert msgspec.json.decode(cli("get", JOB, "-o", "json")[1], type=JobView).id == JOB
    assert cli("get", JOB, "-f", "a.png")[:2] == (0, "a.png\n")
    assert Path("a.png").read_bytes() == PICTURE
    assert cli("get", JOB, "-w")[0] == 0


def test_get_of_what_has_no_result(head: FakeHead, cli: Cli) -> None:
    head.life = [job_view(status="running", stage="denoise", step=3, steps=9)]
    assert "denoise 3/9" in cli("get", JOB)[1]
    assert cli("get", JOB, "-f", "a.png")[0] == 8
    head.life = [job_view(status="failed", error=JobError("dead_letter", "no\x1b[2J"))]
    code, out, _ = cli("get", JOB)
    assert code == 0
    assert "\x1b" not in out
    assert cli("get", JOB, "-f", "a.png")[0] == 100
    head.life = [job_view(status="cancelled")]
    assert cli("get", JOB, "-f", "a.png")[0] == 103


def test_cancel_token_scale(head: FakeHead, cli: Cli) -> None:
    assert cli("cancel", JOB)[:2] == (0, f"{JOB} cancelled\n")
    code, out, err = cli("token", "demo")
    assert (code, out) == (0, "s3cret\n")
    assert "s3cret" not in err
    assert json.loads(cli("token", "demo", "-o", "json")[1])["token"] == "s3cret"
    assert cli("scale", "demo", "denoise=3", "m.encode=0")[0] == 0
    assert cli("scale", "demo", "--auto")[0] == 0
    sent = [body for _, path, body in head.calls if path == "/scale"]
    assert sent == [{"counts": {"denoise": 3, "m.encode": 0}, "auto": False}, {"counts": {}, "auto": True}]
