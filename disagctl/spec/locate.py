"""Relative paths become absolute, and a model's id becomes a folder where it is one."""

from pathlib import Path
from typing import Final

from disagctl.spec.schema import SYNTHETIC, ModelEntry, Spec

CATALOGS: Final = ("shipped", "sky")  # what stands for no file
_LOCAL_SIGNS: Final = ("/", "./", "../", "~/")


def absolute(spec: Spec, base: Path) -> None:
    """Rewrite every path in ``spec`` against the folder of its file; give unnamed models their names."""
    for entry in spec.models:
        entry.id = _model_id(entry.id, base)
        entry.name = entry.name or _model_name(entry)
        if entry.workload is not None and entry.workload.trace:
            entry.workload.trace = _path(entry.workload.trace, base)
    if spec.workload is not None and spec.workload.trace:
        spec.workload.trace = _path(spec.workload.trace, base)
    spec.catalog = [name if name in CATALOGS else _path(name, base) for name in spec.catalog]
    spec.profiles = _path(spec.profiles, base) if spec.profiles else None
    spec.api.certificate = _path(spec.api.certificate, base) if spec.api.certificate else None
    spec.api.private_key = _path(spec.api.private_key, base) if spec.api.private_key else None


def is_local(model_id: str) -> bool:
    """Whether a loaded id is a folder here."""
    return model_id.startswith("/")


def is_file(path: str | Path) -> bool:
    """Whether there is such a file; a path no file can have is no file."""
    try:
        return Path(path).is_file()
    except (OSError, ValueError):
        return False


def is_folder(path: str | Path) -> bool:
    """Whether there is such a folder."""
    try:
        return Path(path).is_dir()
    except (OSError, ValueError):
        return False


def _model_id(model_id: str, base: Path) -> str:
    if model_id == SYNTHETIC:
        return model_id
    if model_id in {".", ".."} or model_id.startswith(_LOCAL_SIGNS):
        return _path(model_id, base)
    here = _path(model_id, base)  # as in diffusers, a folder of that name wins over the hub
    return here if is_folder(here) else model_id


def _model_name(entry: ModelEntry) -> str:
    """The last part of the id."""
    return entry.id.rstrip("/").rpartition("/")[2]


def _path(path: str, base: Path) -> str:
    if path.startswith("~/"):
        try:
            return str(Path(path).expanduser())
        except RuntimeError:  # nobody's home
            return str((base / path).absolute())
    # normalised in the text only: a symbolic link to a model stays a link
    parts: list[str] = []
    for part in (base.absolute() / path).parts:
        if part == ".." and len(parts) > 1:
            parts.pop()
        elif part != "..":
            parts.append(part)
    return str(Path(*parts))
