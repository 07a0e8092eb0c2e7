"""A model's configs, without its weights: from its folder, from what is shipped, or from the hub when nothing else is known."""

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any, Final

import msgspec

from disagctl.errors import InfeasibleError
from disagctl.planning import shipped
from disagctl.planning.names import network
from disagctl.spec.schema import SYNTHETIC, ModelEntry, Spec
from stages.models.base import ModelError
from stages.models.cards import FAMILIES, INDEX, read_card, read_components, read_config, two_passes

Config = dict[str, Any]
_NETWORK: Final = ("httpx", "httpcore", "huggingface_hub", "requests")


class Repo(msgspec.Struct):
    """The JSON files of a diffusers repository. ``origin``: where they were found."""

    index: Config
    components: dict[str, Config]
    defaults: Config
    origin: str

    @property
    def pipeline(self) -> str:
        """The pipeline's class."""
        return str(self.index.get("_class_name", ""))

    def two_passes(self, guidance: float | None) -> bool:
        """Whether the spec asks for two passes a step; what the model does by itself, its facts know."""
        return two_passes(self.pipeline, guidance)


def find_repo(spec: Spec, entry: ModelEntry, missing: Sequence[str], said: str = "") -> Repo | None:
    """The model's configs; None when they are not here and all stages are timed anyway.

    ``missing``: stages without a timing, for whose sake the hub is asked. Raises InfeasibleError when that fails;
    ``said``: what is wrong with the profiles, for the message.
    """
    if entry.id == SYNTHETIC:
        return None
    if entry.id.startswith("/"):
        return _from_folder(Path(entry.id))
    known = _shipped().get(network(entry.id))
    if known is not None:
        return known
    return _from_hub(spec, entry, said or f"no timing of {', '.join(missing)}") if missing else None


def _from_folder(folder: Path, origin: str = "") -> Repo | None:
    try:
        index = read_config(folder / INDEX)
        components = read_components(folder)
        defaults = dict(read_card(folder).defaults)
    except ModelError:
        return None
    return Repo(index, components, defaults, origin or str(folder))


def _from_hub(spec: Spec, entry: ModelEntry, said: str) -> Repo | None:
    """From the hub's cache or the hub itself; needs huggingface_hub."""
    from stages.models.weights import configs

    try:
        folder = configs(spec.source(entry))
    except Exception as err:
        known = isinstance(err, (ModelError, OSError, ValueError))
        if not known and not type(err).__module__.startswith(_NETWORK):
            raise
        reason = next(iter(str(err).splitlines()), "the hub cannot be reached")[:160]
        raise InfeasibleError(
            f"too little is known of {entry.id}",
            why=f"{said}, and its configs cannot be read to estimate from: {reason}",
            next=f"profile first: disagctl profile {entry.id} -f profiles.csv", code="profile_first",
        ) from err  # fmt: skip
    return _from_folder(folder, f"{entry.id} on the hub")


@cache
def _shipped() -> dict[str, Repo]:
    """By network. Configs of well-known models, as their classes' defaults and their papers give them."""
    entries = msgspec.json.decode(shipped.text(shipped.CONFIGS), type=dict[str, dict[str, Any]])
    found = {}
    for name, entry in entries.items():
        family = FAMILIES.get(str(entry["index"].get("_class_name")))
        defaults = (family.defaults if family else {}) | entry.get("defaults", {})
        found[network(name)] = Repo(entry["index"], entry["components"], defaults, f"{name}'s config, shipped")
    return found
