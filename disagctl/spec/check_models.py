"""The models of a spec: names, ids, folders, the synthetic model's stages."""

import re
from pathlib import Path
from typing import Final

import msgspec

from disagctl.spec.bind import bind, info_of
from disagctl.spec.locate import is_folder, is_local
from disagctl.spec.nodes import Map, Problem, line_of, node_at, shown
from disagctl.spec.schema import SYNTHETIC, ModelEntry, Spec
from stages.models.base import ModelError
from stages.models.cards import INDEX, SPLIT_STAGES, STAGES, is_split, parse_options, read_card
from stages.models.registry import BUILTIN
from stages.models.synthetic import StageOptions, parse

MAX_MODELS: Final = 64
_NAME: Final = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,94}[A-Za-z0-9_-])?")  # file names are made of it
_STAGE: Final = re.compile(r"[a-z][a-z0-9_]{0,31}")
_HUB_ID: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,95}(?:/[A-Za-z0-9][A-Za-z0-9._-]{0,95})?")


def known_stages(entry: ModelEntry) -> tuple[str, ...] | None:
    """The model's stages, in order; None when only its adapter could tell."""
    if entry.id == SYNTHETIC:
        return tuple(entry.stages) or STAGES
    if entry.adapter is not None and entry.adapter not in BUILTIN:
        return None
    return SPLIT_STAGES if is_split(entry.options) else STAGES


def check_models(spec: Spec, tree: Map, *, check_files: bool) -> None:
    """Raises Problem for the first thing that is wrong."""
    if not 1 <= len(spec.models) <= MAX_MODELS:
        raise Problem(line_of(tree, "models"), f"a service has 1 to {MAX_MODELS} models")
    seen: set[str] = set()
    for i, entry in enumerate(spec.models):
        if not _NAME.fullmatch(entry.name):
            why = "it is letters, digits, dots, dashes and underscores, and the last part of the id if left out"
            raise Problem(line_of(tree, "models", i, "name"), f"{shown(entry.name)} cannot be a model's name", why)
        if entry.name in seen:
            raise Problem(
                line_of(tree, "models", i, "name"), f"two models are called {entry.name!r}", "set their names"
            )
        seen.add(entry.name)
        if entry.id == SYNTHETIC:
            _synthetic(entry, tree, i)
        else:
            _real(entry, tree, i, check_files)


def _synthetic(entry: ModelEntry, tree: Map, index: int) -> None:
    for stage in entry.stages:
        if not _STAGE.fullmatch(stage):
            raise Problem(line_of(tree, "models", index, "stages", stage), f"{shown(stage)} cannot be a stage's name")
    for stage, options in entry.stages.items():
        bind(node_at(tree, "models", index, "stages", stage), info_of(StageOptions), stage)  # knows its lines
        try:
            parse(msgspec.json.encode({stage: options}))
        except ModelError as err:
            raise Problem(line_of(tree, "models", index, "stages", stage), str(err)) from err


def _real(entry: ModelEntry, tree: Map, index: int, check_files: bool) -> None:
    line = line_of(tree, "models", index, "id")
    if entry.stages and (entry.adapter is None or entry.adapter in BUILTIN):
        where = line_of(tree, "models", index, "stages")
        what = "model.stages describes the synthetic model's stages"
        raise Problem(where, what, "this model's stages follow from its files", "replicas belong to stages: below")
    if entry.adapter is None or entry.adapter in BUILTIN:
        try:
            parse_options(msgspec.json.encode(entry.options))
        except ModelError as err:
            raise Problem(line_of(tree, "models", index, "options"), str(err)) from err
    if not is_local(entry.id):
        if not _HUB_ID.fullmatch(entry.id):
            raise Problem(line, f"{shown(entry.id)} is neither a hub id nor a folder", "write owner/name, or ./folder")
    elif check_files:
        _folder(entry, line)


def _folder(entry: ModelEntry, line: int) -> None:
    if not is_folder(entry.id):
        raise Problem(line, f"there is no folder {shown(entry.id)}", "paths are relative to the spec's folder")
    if entry.adapter is not None and entry.adapter not in BUILTIN:
        return  # only its adapter knows what belongs there
    try:
        read_card(Path(entry.id), msgspec.json.encode(entry.options))
    except ModelError as err:
        raise Problem(line, f"{shown(entry.id)} is no model", str(err), f"a model's folder holds {INDEX}") from err
