"""The folder that travels to a node: the code as a wheel, the lock, and the scripts that install and start it."""

import hashlib
import os
import shutil
import tempfile
from importlib import resources
from pathlib import Path
from typing import Any, Final

import yaml

from task_templates.wheel import constraints, lock_key, wheel_bytes, wheel_name

AGENT: Final = "agent.yaml"
HEAD: Final = "head.yaml"


def template(name: str) -> dict[str, Any]:
    """A task as SkyPilot reads it; yours to change."""
    task: dict[str, Any] = yaml.safe_load(resources.files("task_templates").joinpath(name).read_text())
    return task


def write_kit(folder: Path) -> Path:
    """Write the kit below ``folder`` unless it is there; returns where. Its name is its content's."""
    wheel = wheel_bytes()
    scripts = resources.files("task_templates").joinpath("kit")
    files = {entry.name: entry.read_bytes() for entry in scripts.iterdir() if entry.name.endswith(".sh")}
    files |= {
        wheel_name(): wheel,
        "constraints.txt": constraints().encode(),
        "lock.key": lock_key().encode(),
        "code.key": hashlib.sha256(wheel).hexdigest()[:12].encode(),
    }
    name = hashlib.sha256(b"".join(key.encode() + files[key] for key in sorted(files))).hexdigest()[:12]
    place = folder / f"kit-{name}"
    if place.is_dir():
        return place
    folder.mkdir(parents=True, exist_ok=True)
    half = Path(tempfile.mkdtemp(prefix="kit-", suffix=".half", dir=folder))
    for key, data in files.items():
        (half / key).write_bytes(data)
    try:
        os.rename(half, place)  # noqa: PTH104  # fails where somebody was faster, which Path.replace would too
    except OSError:
        shutil.rmtree(half)
        if not place.is_dir():
            raise
    return place
