"""The doctor's checks. Each looks at one thing and says what it found; none changes anything."""

import importlib.metadata
import os
import platform
import shutil
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final, Literal

import msgspec
import psutil

from disagctl import precheck, state
from disagctl.admin_client import head_status
from disagctl.errors import DisagctlError
from disagctl.provision.local import strays
from disagctl.settings import child_environment, secret
from stages.hardware import gpus

GIB: Final = 1 << 30
MIN_MEMORY: Final = 2 * GIB
MIN_SHM: Final = 256 << 20
IMPORT_S: Final = 30.0
MISSING: Final = {  # what Mooncake's wheels look for on the system, and how Debian and Ubuntu bring it
    "libibverbs": "apt install libibverbs1; until then shared memory and zmq are used",
    "libnl": "apt install libnl-3-200 libnl-route-3-200; until then shared memory and zmq are used",
    "libcuda": "install NVIDIA's driver, or mooncake-transfer-engine-non-cuda in its place",
}
MOONCAKE: Final = ("mooncake-transfer-engine-non-cuda", "mooncake-transfer-engine")
SHM: Final = Path("/dev/shm")  # noqa: S108  # looked at, not written to


class Check(msgspec.Struct):
    """One answer. ``next``: what to do about it."""

    name: str
    status: Literal["ok", "warn", "fail"]
    found: str
    next: str = ""


def run_checks() -> list[Check]:
    """All of them, in the order they are shown."""
    sources: tuple[Callable[[], Iterator[Check]], ...] = (
        _python, _packages, _mooncake, _devices, _memory, _disk, _ports, _credentials, _services,
    )  # fmt: skip
    return [check for source in sources for check in source()]


def _python() -> Iterator[Check]:
    yield Check("python", "ok", f"{platform.python_version()} on {platform.system()} {platform.machine()}")


def _packages() -> Iterator[Check]:
    for package in ("torch", "diffusers", "transformers"):
        version = _version(package)
        if version:
            yield Check(package, "ok", version)
        else:
            yield Check(package, "warn", "not installed", "to run models here: pip install 'disagctl[worker-cpu]'")


def _mooncake() -> Iterator[Check]:
    """Imported in another process: a wheel for the wrong CUDA may take its process with it."""
    found = [f"{name} {_version(name)}" for name in MOONCAKE if _version(name)]
    if len(found) > 1:
        yield Check("mooncake", "warn", " and ".join(found), "they overwrite each other: uninstall both, install one")
    elif not found:
        yield Check("mooncake", "ok", "not installed; shared memory and zmq are used instead")
    else:
        command = [sys.executable, "-c", "import mooncake.engine"]
        try:
            done = subprocess.run(command, capture_output=True, timeout=IMPORT_S, env=child_environment(), check=False)
            works, why = done.returncode == 0, done.stderr.decode("utf-8", "replace").strip().rpartition("\n")[2]
        except subprocess.TimeoutExpired:
            works, why = False, "its import hangs"
        hint = next(
            (fix for library, fix in MISSING.items() if library in why), "shared memory and zmq are used instead"
        )
        yield (
            Check("mooncake", "ok", found[0]) if works else Check("mooncake", "warn", f"{found[0]}: {why[:120]}", hint)
        )


def _devices() -> Iterator[Check]:
    names = [f"{gpu.name} ({gpu.memory_bytes / GIB:.0f} GiB)" for gpu in gpus()]
    yield Check("gpu", "ok", ", ".join(names) or "none; workers will use the CPU")


def _memory() -> Iterator[Check]:
    free = psutil.virtual_memory().available
    hint = "" if free >= MIN_MEMORY else "small models only: a worker with torch takes 0.5 GiB before its weights"
    yield Check("memory", "warn" if hint else "ok", f"{free / GIB:.1f} GiB available", hint)
    if SHM.is_dir():
        room = shutil.disk_usage(SHM).free
        hint = "" if room >= MIN_SHM else "give the container more: docker run --shm-size 2g"
        yield Check("shared memory", "warn" if hint else "ok", f"{room / GIB:.1f} GiB free in {SHM}", hint)


def _disk() -> Iterator[Check]:
    try:
        home = state.home()
        mode = stat.S_IMODE(home.stat().st_mode)
        writable = os.access(home, os.W_OK | os.X_OK)
    except OSError as err:
        yield Check(
            "state", "fail", f"{err.filename}: {err.strerror}", "set DISAGCTL_HOME to a folder you can write to"
        )
        return
    if not writable:
        yield Check("state", "fail", f"{home} cannot be written to", "set DISAGCTL_HOME to a folder you can write to")
    elif mode & 0o077:
        yield Check("state", "fail", f"{home} is open to others ({mode:04o})", f"chmod 700 {home}")
    else:
        yield Check("state", "ok", str(home))
    try:
        precheck.check_disk(home)
        yield Check("disk", "ok", f"{shutil.disk_usage(home).free / GIB:.1f} GiB free")
    except DisagctlError as err:
        yield Check("disk", "fail", err.what, err.next)


def _ports() -> Iterator[Check]:
    try:
        yield Check("ports", "ok", f"the next service gets {precheck.choose_port('127.0.0.1', None)}")
    except DisagctlError as err:
        yield Check("ports", "fail", err.what, err.next)


def _credentials() -> Iterator[Check]:
    """Whether there is a token; never what it is."""
    stored = Path(secret("HF_HOME") or "~/.cache/huggingface").expanduser() / "token"
    if secret("HF_TOKEN"):
        yield Check("hugging face", "ok", "HF_TOKEN is set")
    elif stored.is_file():
        yield Check("hugging face", "ok", f"a token is stored in {stored}")
    else:
        yield Check("hugging face", "ok", "no token; only gated models need one", "set HF_TOKEN for gated models")


def _services() -> Iterator[Check]:
    """Services whose head is gone, and processes that nobody looks after."""
    found = state.services()
    if not found:
        yield Check("services", "ok", "none")
    for where in found:
        try:
            yield _service(where)
        except DisagctlError as err:
            yield Check(f"service {where.name}", "warn", err.what, err.next)


def _service(where: state.ServicePaths) -> Check:
    state.read_record(where)
    view = head_status(where, 2.0)
    if view is not None:
        return Check(f"service {where.name}", "ok", f"{view.state} at {view.endpoint}")
    left = f", {len(strays(where))} process(es) still run"
    return Check(
        f"service {where.name}", "warn", f"no head{left}", f"disagctl up SPEC, or disagctl down {where.name} -y"
    )


def _version(package: str) -> str | None:
    """Its version, without importing it."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None
