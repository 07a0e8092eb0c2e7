"""The golden list: what fails how, and that it says so in the one form."""

import ast
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from disagctl import errors, lifecycle
from tests.cli.conftest import Cli

FORM = re.compile(r"error\[[a-z_]+\]: \S.*\n")
ROOT = Path(__file__).parents[2]
GOLDEN = {
    errors.UnexpectedError: 1,
    errors.UsageError: 2,
    errors.SpecError: 3,
    errors.InfeasibleError: 4,
    errors.OverBudgetError: 5,
    errors.CredentialsError: 6,
    errors.TeardownError: 7,
    errors.WaitTimeout: 8,
    errors.UnhealthyError: 9,
    errors.RequestFailed: 100,
    errors.RequestCancelled: 103,
}


@pytest.fixture
def spec(tmp_path: Path) -> str:
    path = tmp_path / "service.yaml"
    path.write_text("name: demo\nmodel: synthetic\nworkload: {rate: 1/s}\n")
    return str(path)


def raising(err: BaseException) -> Any:
    def fail(*args: Any, **kwargs: Any) -> None:
        raise err

    return fail


@pytest.mark.parametrize("error", GOLDEN)
def test_each_class_has_its_code(
    error: type[errors.DisagctlError], spec: str, cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lifecycle, "up", raising(error("it went wrong", why="because\n\x1b[31m", next="do this")))
    code, out, err = cli("up", spec)
    assert code == GOLDEN[error]
    assert out == ""
    last = err.splitlines(keepends=True)[-1]
    assert FORM.fullmatch(last), last
    assert last == f"error[{error.code}]: it went wrong — because  [31m — do this\n"


def test_every_class_is_on_the_list() -> None:
    assert set(GOLDEN) == set(errors.DisagctlError.__subclasses__())


def test_the_unexpected_is_one_line(spec: str, cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lifecycle, "up", raising(ZeroDivisionError("oh")))
    code, _, err = cli("up", spec)
    assert code == 1
    assert err.splitlines()[-1].startswith(
        "error[unexpected]: something that should not happen did — ZeroDivisionError: oh"
    )
    assert "Traceback" not in err
    code, _, err = cli("--debug", "up", spec)
    assert (code, "Traceback" in err) == (1, True)


def test_interrupted(spec: str, cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lifecycle, "up", raising(KeyboardInterrupt()))
    assert cli("up", spec)[0] == 130


@pytest.mark.parametrize(
    ("args", "hint"),
    [
        (["upp"], "Did you mean 'up'?"),
        (["up"], "Missing argument 'SPEC'"),
        (["up", "--nope", "x"], "--nope"),
        (["up", "x.yaml", "--timeout", "soon"], "180s"),
        (["status", "-o", "yaml"], "yaml"),
        (["status", "nobody"], "no service named 'nobody'"),
        (["status", "No Body"], "not a service name"),
        (["get", "17"], "not a request id"),
        (["cancel", "img_../../x_1"], "not a request id"),
        (["scale", "nobody", "denoise"], "not STAGE=N"),
        (["scale", "nobody", "denoise=-1"], "not STAGE=N"),
        (["scale", "nobody"], "--auto"),
        (["scale", "nobody", "a=1", "a=2"], "named twice"),
        (["generate", "nobody", "x", "-f", "no/such/place.png"], "no folder"),
        (["generate", "nobody", "x", "--image", "none.png"], "cannot read"),
        (["down", "nobody", "-y"], "no service named"),
        (["logs", "nobody"], "no service named"),
    ],
)
def test_usage(args: list[str], hint: str, cli: Cli) -> None:
    code, out, err = cli(*args)
    assert (code, out) == (2, "")
    assert FORM.fullmatch(err), err
    assert hint in err


def test_no_command_shows_help_and_fails(cli: Cli) -> None:
    code, out, err = cli()
    assert (code, out) == (2, "")
    assert "Usage: disagctl" in err


def test_a_broken_spec(tmp_path: Path, cli: Cli) -> None:
    path = tmp_path / "service.yaml"
    path.write_text("name: x\nmodel: synthetic\nworkload: {rat: 1/s}\n")
    code, _, err = cli("up", str(path))
    assert code == 3
    assert err == f"error[spec_invalid]: {path}:3: unknown key 'rat' in workload — did you mean 'rate'?\n"
    assert cli("up", str(tmp_path / "none.yaml"))[0] == 3


def test_places_that_share_no_head_are_refused_with_what_to_do(spec: str, cli: Cli) -> None:
    code, _, err = cli("up", spec, "--infra", "aws/us-east-1,slurm")
    assert code == 4
    assert "head_unreachable" in err
    assert "advertise" in err
    assert cli("up", spec, "--infra", "asw")[0] == 2
    assert cli("up", spec, "--budget", "-3")[0] == 2


def test_a_closed_pipe_is_no_error_message() -> None:
    script = f"{sys.executable} -m disagctl.cli.main schema | head -1; echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.stderr == ""
    assert done.stdout.splitlines()[0] == "{"
    assert done.stdout.splitlines()[1] in {"0", "141"}


def test_exits_are_raised_not_returned() -> None:
    """``return typer.Exit(1)`` exits 0."""
    for path in (ROOT / "disagctl" / "cli").glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            assert not (isinstance(node, ast.Return) and node.value and "Exit(" in ast.unparse(node.value)), path


def test_help_needs_nothing_heavy() -> None:
    code = (
        "import sys; from disagctl.cli.main import run; assert run(['--help']) == 0;"
        "print(sorted({'rich', 'httpx', 'yaml', 'msgspec', 'starlette', 'torch', 'zmq', 'psutil'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
    assert "\x1b" not in done.stdout
