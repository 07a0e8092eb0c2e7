"""Tiny random-weight repositories of ten model families, built offline in the ordinary diffusers layout.

``python -m tests.tiny DIR [family…]`` writes ``DIR/<family>``. They compute nothing meaningful, in a fraction of a
second, through exactly the code that the real models take.
"""

import json
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

FAMILIES = ("flux", "wan", "sdxl", "wan_i2v", "wan22", "qwenimage", "sd3", "zimage", "hunyuan", "wan22_ti2v")
VIDEO = frozenset({"wan", "wan_i2v", "wan22", "wan22_ti2v", "hunyuan"})
_GUIDANCE = {"flux": 3.5, "wan22": 4.0, "qwenimage": 4.0, "sd3": 7.0, "hunyuan": 6.0}  # the others: 5
_MAX_LENGTH = {"flux": 48, "sd3": 64, "hunyuan": 64}


def defaults(family: str) -> dict[str, Any]:
    """Request fields that keep a tiny model tiny; written to the repository's disagctl.json."""
    fields: dict[str, Any] = {
        "width": 32,
        "height": 32,
        "num_inference_steps": 4,
        "guidance_scale": _GUIDANCE.get(family, 5.0),
    }
    if family in VIDEO:
        fields |= {"num_frames": 9, "fps": 8}
    if family in _MAX_LENGTH:
        fields["max_sequence_length"] = _MAX_LENGTH[family]
    return fields


def build(family: str, folder: Path) -> Path:
    """Write the family's repository to ``folder``, replacing what is there."""
    import torch

    from tests.tiny import images, videos
    from tests.tiny.parts import fill_zeros

    makers = images.MAKERS | videos.MAKERS
    if family not in makers:
        msg = f"no tiny model is called {family!r}; there are {', '.join(FAMILIES)}"
        raise ValueError(msg)
    _quiet()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        pipeline = makers[family]()
        fill_zeros(pipeline)
    shutil.rmtree(folder, ignore_errors=True)
    pipeline.save_pretrained(folder, safe_serialization=True)
    (folder / "disagctl.json").write_text(json.dumps({"defaults": defaults(family)}, indent=2))
    return folder


def build_all(directory: Path, families: Iterable[str] = FAMILIES) -> list[Path]:
    """Write several families under ``directory``, each in a folder of its name."""
    return [build(family, directory / family) for family in families]


def ensure(directory: Path, family: str) -> Path:
    """The family's repository under ``directory``, built if it is not there. Safe when several processes ask at once."""
    folder = directory / family
    if not (folder / "disagctl.json").is_file():  # written last
        directory.mkdir(parents=True, exist_ok=True)
        from tempfile import mkdtemp

        scratch = Path(mkdtemp(prefix=f".{family}-", dir=directory))
        built = build(family, scratch / family)
        try:
            built.rename(folder)
        except OSError:  # someone else was first
            if not (folder / "disagctl.json").is_file():
                raise
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
    return folder


def _quiet() -> None:
    import diffusers
    import transformers

    for library in (diffusers, transformers):
        library.utils.logging.set_verbosity_error()
        library.utils.logging.disable_progress_bar()
