"""The command line: one Typer app, and the one boundary where every error becomes a line and an exit code.

Nothing heavy is imported here or at the top of a verb: ``disagctl --help`` has to be instant.
"""

import errno
import os
import sys
from collections.abc import Sequence

import typer
from typer.main import get_command

from disagctl import __version__
from disagctl.cli import (
    cancel,
    cost,
    doctor,
    down,
    gc,
    generate,
    get,
    init,
    logs,
    plan,
    profile,
    scale,
    schema,
    simulate,
    status,
    token,
    up,
)
from disagctl.errors import DisagctlError, UnexpectedError, UsageError

PROGRAM = "disagctl"
INTERRUPTED = 130
PIPE_CLOSED = 141  # as a shell reports SIGPIPE

# Without rich markup: help stays plain text, the same in a pipe as on a terminal, and costs no import.
app = typer.Typer(
    rich_markup_mode=None, pretty_exceptions_enable=False, context_settings={"help_option_names": ["-h", "--help"]}
)
app.command("init")(init.init)
app.command("plan")(plan.plan)
app.command("profile")(profile.profile)
app.command("simulate")(simulate.simulate)
app.command("up")(up.up)
app.command("status")(status.status)
app.command("generate")(generate.generate)
app.command("get")(get.get)
app.command("cancel")(cancel.cancel)
app.command("logs")(logs.logs)
app.command("scale")(scale.scale)
app.command("down")(down.down)
app.command("gc")(gc.gc)
app.command("cost")(cost.cost)
app.command("token")(token.token)
app.command("doctor")(doctor.doctor)
app.command("schema")(schema.schema)


def _version(asked: bool) -> None:
    if asked:
        typer.echo(f"{PROGRAM} {__version__}")
        raise typer.Exit(0)


@app.callback(invoke_without_command=True)
def root(
    ctx: typer.Context,
    version: bool = typer.Option(False, "--version", callback=_version, is_eager=True, help="Show the version."),
    debug: bool = typer.Option(False, "--debug", help="Show the traceback of an unexpected error."),
) -> None:
    """Serve diffusion models as disaggregated stages: encode, denoise, decode."""
    ctx.obj = {"debug": debug}
    if ctx.invoked_subcommand is None:
        typer.echo(ctx.get_help(), err=True)
        raise typer.Exit(UsageError.exit_code)


def main() -> None:
    """Entry point of the ``disagctl`` command."""
    sys.exit(run(sys.argv[1:]))


def run(args: Sequence[str]) -> int:
    """Run one command line; the exit code. Prints what went wrong."""
    try:
        code = get_command(app).main(list(args), prog_name=PROGRAM, standalone_mode=False)
        sys.stdout.flush()  # a full disk or a closed pipe shows here, not in silence at exit
        return code if isinstance(code, int) else 0
    except DisagctlError as err:
        return _report(err)
    except typer.TyperException as err:
        return _report(_usage(err))
    except (KeyboardInterrupt, typer.Abort):
        typer.echo("interrupted", err=True)
        return INTERRUPTED
    except Exception as err:  # noqa: BLE001  # boundary: whatever it is, the user gets a line and a code
        if isinstance(err, OSError) and err.errno == errno.EPIPE:
            return _pipe_closed()
        return _report(_unexpected(err, debug="--debug" in args))


def _report(err: DisagctlError) -> int:
    typer.echo(_one_line(str(err)), err=True)
    return err.exit_code


def _one_line(text: str) -> str:
    """Errors may quote a model's or a server's words: no line breaks, no terminal codes."""
    return "".join(char if char.isprintable() else " " for char in text)


def _usage(err: typer.TyperException) -> UsageError:
    """What the parser refuses, in our form."""
    ctx = getattr(err, "ctx", None)
    command = ctx.command_path if ctx is not None else PROGRAM
    return UsageError(err.format_message().rstrip("."), next=f"{command} --help")


def _unexpected(err: Exception, *, debug: bool) -> UnexpectedError:
    import traceback

    if debug:
        traceback.print_exception(err)
    why = f"{type(err).__name__}: {err}"[:500]
    return UnexpectedError("something that should not happen did", why=why, next="the same with --debug shows where")


def _pipe_closed() -> int:
    """The reader of our output has gone (``| head``): end quietly, also when Python flushes at exit."""
    devnull = os.open(os.devnull, os.O_WRONLY)
    os.dup2(devnull, sys.stdout.fileno())
    return PIPE_CLOSED


if __name__ == "__main__":
    main()
