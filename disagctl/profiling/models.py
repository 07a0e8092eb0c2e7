"""The model to profile: its source and card, and whether its weights are here or made up."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from disagctl.errors import CredentialsError, UsageError
from disagctl.models import card_of
from planner.facts.flops import Unknown, work_from_configs
from planner.facts.work import ModelWork
from stages.models.base import ModelCard, ModelError
from stages.models.cards import INDEX, read_config
from stages.models.weights import configs, fetch
from stages.protocol import ModelSource

SYNTHETIC = "synthetic"
EMBEDDED_GUIDANCE = frozenset({"FluxPipeline", "Flux2Pipeline", "HunyuanVideoPipeline"})  # one pass a step
_WEIGHTY = ("text_encoder", "image_encoder", "transformer", "unet", "vae")


class Subject(msgspec.Struct):
    """What is profiled. ``name``: as rows call it. ``missing``: why its weights cannot be had; empty when they are here."""

    name: str
    source: ModelSource
    card: ModelCard
    guidance: bool
    work: ModelWork | None
    missing: str = ""


def find_subject(model: str, name: str | None, dtype: str, revision: str | None, *, weights: bool = True) -> Subject:
    """Read the model's configs, and fetch its weights if they are wanted.

    Raises UsageError or CredentialsError when there is no such model; without weights it can still be profiled.
    """
    local = Path(model).expanduser()
    if model == SYNTHETIC:
        source = ModelSource(model, model, dtype=dtype)
        return Subject(name or model, source, card_of(source), guidance=False, work=None)
    where = str(local.absolute()) if local.is_dir() else model
    source = ModelSource(name or model, where, revision, dtype)
    try:
        folder = configs(source)
        card = card_of(ModelSource(model, str(folder.absolute())))
        index, parts = read_config(folder / INDEX), _parts(folder)
    except ModelError as err:
        wants = CredentialsError if "gated" in str(err) else UsageError
        raise wants(f"{model} cannot be read", why=str(err), code="model_missing") from err
    except OSError as err:  # httpx's and huggingface_hub's errors of a broken connection are OSErrors or raised below
        raise _unreachable(err) from err
    except Exception as err:
        if not type(err).__module__.startswith(("httpx", "httpcore", "huggingface_hub")):
            raise
        raise _unreachable(err) from err
    work = work_from_configs(index, parts)
    return Subject(
        name=name or (local.absolute().name if local.is_dir() else model),
        source=source,
        card=card,
        guidance=_two_passes(index, card.defaults),
        work=None if isinstance(work, Unknown) else work,
        missing=_missing_weights(source, folder, list(parts)) if weights else "asked for",
    )


def _parts(folder: Path) -> dict[str, dict[str, Any]]:
    return {path.parent.name: read_config(path) for path in sorted(folder.glob("*/config.json"))}


def _two_passes(index: Mapping[str, Any], defaults: Mapping[str, Any]) -> bool:
    """Whether a step takes two passes as the model is served by default."""
    scale = defaults.get("guidance_scale") or 0.0
    return str(index.get("_class_name")) not in EMBEDDED_GUIDANCE and float(scale) > 1


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
