"""The model to profile: its source and card, and whether its weights are here or made up."""

from pathlib import Path

import msgspec

from disagctl.errors import CredentialsError, UsageError
from disagctl.models import card_of
from planner.facts.flops import Unknown, work_from_configs
from planner.facts.work import ModelWork
from planner.precision import AUTO, unfit
from stages.models.base import ModelCard, ModelError
from stages.models.cards import INDEX, parse_options, read_components, read_config, two_passes
from stages.models.weights import configs, fetch
from stages.protocol import ModelSource

SYNTHETIC = "synthetic"
_WEIGHTY = ("text_encoder", "image_encoder", "transformer", "unet", "vae")


class Subject(msgspec.Struct):
    """What is profiled. ``name``: as rows call it. ``missing``: why its weights cannot be had; empty when they are here."""

    name: str
    source: ModelSource
    card: ModelCard
    guidance: bool
    work: ModelWork | None
    missing: str = ""


class Asked(msgspec.Struct, frozen=True):
    """The model to profile, and how. ``precision``: a name of planner.precision. ``options``: the spec's model.options (the
    synthetic model's stages) as JSON. ``weights``: False to make them up."""

    model: str
    name: str | None = None
    dtype: str = "auto"
    revision: str | None = None
    precision: str = AUTO
    options: str = "{}"
    weights: bool = True


def find_subject(asked: Asked) -> Subject:
    """Read the model's configs, and fetch its weights if they are wanted.

    Raises UsageError or CredentialsError when there is no such model; without weights it can still be profiled.
    """
    model, name = asked.model, asked.name
    local = Path(model).expanduser()
    where = str(local.absolute()) if local.is_dir() else model
    source = ModelSource(
        name or model, where, asked.revision, asked.dtype, options=asked.options.encode(), precision=asked.precision
    )
    _check_precision(asked.precision)
    if model == SYNTHETIC:
        return Subject(name or model, source, _synthetic_card(source), guidance=False, work=None)
    try:
        folder = configs(source)
        card = card_of(msgspec.structs.replace(source, id=str(folder.absolute())))
        split = parse_options(source.options).experts == "split"
        index, parts = read_config(folder / INDEX), read_components(folder)
    except ModelError as err:
        wants = CredentialsError if "gated" in str(err) else UsageError
        raise wants(f"{model} cannot be read", why=str(err), code="model_missing") from err
    except OSError as err:  # httpx's and huggingface_hub's errors of a broken connection are OSErrors or raised below
        raise _unreachable(err) from err
    except Exception as err:
        if not type(err).__module__.startswith(("httpx", "httpcore", "huggingface_hub")):
            raise
        raise _unreachable(err) from err
    work = work_from_configs(index, parts, split=split)
    return Subject(
        name=name or (local.absolute().name if local.is_dir() else model),
        source=source,
        card=card,
        guidance=two_passes(str(index.get("_class_name")), card.defaults.get("guidance_scale")),
        work=None if isinstance(work, Unknown) else work,
        missing=_missing_weights(source, folder, list(parts)) if asked.weights else "asked for",
    )


def _synthetic_card(source: ModelSource) -> ModelCard:
    try:
        return card_of(source)
    except ModelError as err:
        raise UsageError("the synthetic model cannot be made", why=str(err), next="check --options") from err


def _check_precision(precision: str) -> None:
    problem = unfit(precision, "denoise")
    if problem:
        raise UsageError(f"--precision {precision} will not do", why=problem)


def _missing_weights(source: ModelSource, folder: Path, parts: list[str]) -> str:
    """Fetch the weights; what went wrong where that cannot be done."""
    try:
        fetch(source, folder, [name for name in parts if name.startswith(_WEIGHTY)])
    except ModelError as err:
        return str(err)
    except Exception as err:  # noqa: BLE001  # the hub's client has many ways to fail, and made-up weights will do
        return f"{type(err).__name__}: {err}".partition("\n")[0]
    return ""


def _unreachable(err: Exception) -> UsageError:
    return UsageError(
        "the model hub cannot be reached",
        why=str(err).partition("\n")[0],
        next="give the path of a local copy (its configs will do: the weights can be made up)",
        code="hub_unreachable",
    )
