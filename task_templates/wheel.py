"""This very code as a wheel, from a checkout or from an installation, without a build tool and without the network.

The same code gives the same bytes (binary distribution format 1.0, PEP 427), so that the file's hash names it.
"""

import base64
import csv
import hashlib
import importlib.metadata
import io
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

DISTRIBUTION: Final = "disagctl"
PACKAGES: Final = ("disagctl", "planner", "stages", "task_templates")
ROOT: Final = Path(__file__).resolve().parent.parent
EPOCH: Final = (1980, 1, 1, 0, 0, 0)  # the first date that a zip file can hold
TAGS: Final = "Wheel-Version: 1.0\nGenerator: disagctl\nRoot-Is-Purelib: true\nTag: py3-none-any\n"


def wheel_name() -> str:
    """Its file name."""
    return f"{DISTRIBUTION}-{importlib.metadata.version(DISTRIBUTION)}-py3-none-any.whl"


def wheel_bytes() -> bytes:
    """The wheel."""
    about = importlib.metadata.distribution(DISTRIBUTION)
    info = f"{DISTRIBUTION}-{about.version}.dist-info"
    files = dict(_sources())
    for name in ("METADATA", "entry_points.txt"):
        text = about.read_text(name)
        if text is not None:
            files[f"{info}/{name}"] = text.encode()
    files[f"{info}/WHEEL"] = TAGS.encode()
    record = io.StringIO()
    writer = csv.writer(record, lineterminator="\n")
    for name, data in files.items():
        digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
        writer.writerow((name, f"sha256={digest}", len(data)))
    writer.writerow((f"{info}/RECORD", "", ""))
    files[f"{info}/RECORD"] = record.getvalue().encode()
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            entry = zipfile.ZipInfo(name, EPOCH)
            entry.external_attr = 0o644 << 16
            entry.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(entry, data)
    return out.getvalue()


def _sources() -> Iterator[tuple[str, bytes]]:
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*")):
            if path.is_file() and "__pycache__" not in path.parts:
                yield path.relative_to(ROOT).as_posix(), path.read_bytes()
    for name in ("constraints.txt",):
        if (ROOT / name).is_file():  # in a checkout it stands at the root
            yield f"task_templates/{name}", (ROOT / name).read_bytes()


def constraints() -> str:
    """The lock: what is tested, version by version."""
    for path in (ROOT / "task_templates" / "constraints.txt", ROOT / "constraints.txt"):
        if path.is_file():
            return path.read_text()
    msg = "constraints.txt is missing from this installation"
    raise FileNotFoundError(msg)


def lock_key() -> str:
    """Names the libraries that a node has: the lock, and what of it we ask for."""
    needs = importlib.metadata.requires(DISTRIBUTION) or []
    return hashlib.sha256("\n".join([constraints(), *sorted(needs)]).encode()).hexdigest()[:12]
