"""disagctl init: a commented service.yaml to start from."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from disagctl.errors import CredentialsError, UnexpectedError, UsageError

if TYPE_CHECKING:
    from stages.models.base import ModelCard

MODEL_HELP = "A hub id, a folder with a diffusers repository, or `synthetic`."


def init(
    model: Annotated[str, typer.Argument(metavar="MODEL", help=MODEL_HELP)],
    file: Annotated[Path, typer.Option("--file", "-f", metavar="FILE", help="What to write.")] = Path("service.yaml"),
    name: Annotated[
        str | None, typer.Option("--name", "-n", help="The service's name; else made from the model's.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Overwrite the file.")] = False,
) -> None:
    """Write a commented service.yaml for a model."""
    from disagctl.cli.output import data, say
    from disagctl.cli.template import Facts, service_name, write_template
    from disagctl.spec import parse_spec

    if file.exists() and not force:
        raise UsageError(f"{file} exists", next="--force overwrites it, -f FILE writes another", code="file_exists")
    folder = file.absolute().parent
    model_id, revision, card = _describe(model, folder)
    facts = Facts(name or service_name(model), model_id, revision, card)
    text = write_template(facts)
    parse_spec(text, base=folder, name=str(file))  # what we hand out must be accepted
    try:
        file.write_text(text, encoding="utf-8")
    except OSError as err:
        raise UsageError(f"cannot write {file}", why=str(err.strerror)) from err
    data(str(file))
    say(f"edit what you like, then: disagctl up {file}")


def _describe(model: str, folder: Path) -> "tuple[str, str | None, ModelCard]":
    """The id to write down, the commit it is pinned to, and the model's card."""
    import httpx

    from disagctl.models import card_of
    from stages.models.base import ModelError
    from stages.models.weights import configs
    from stages.protocol import ModelSource

    local = Path(model).expanduser()
    if model == "synthetic":
        return model, None, card_of(ModelSource(model, model))
    where = str(local.absolute()) if local.is_dir() else model
    try:
        found = configs(ModelSource(model, where))
        card = card_of(ModelSource(model, str(found.absolute())))
    except ModelError as err:
        wants = CredentialsError if "gated" in str(err) else UsageError
        raise wants(f"{model} cannot be read", why=str(err), code="model_missing") from err
    except (httpx.HTTPError, OSError) as err:
        raise UnexpectedError(
            "the model hub cannot be reached",
            why=str(err).partition("\n")[0],
            next="give the path of a local copy",
            code="hub_unreachable",
        ) from err
    if local.is_dir():
        return _relative(local, folder), None, card
    return model, found.name, card


def _relative(model: Path, folder: Path) -> str:
    """The model's folder as seen from the spec's, if it lies below it."""
    try:
        return f"./{model.absolute().relative_to(folder)}"
    except ValueError:
        return str(model.absolute())
