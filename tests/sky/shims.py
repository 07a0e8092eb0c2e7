"""SkyPilot's set-up of a node fetches uv and, through it, a Python 3.10. Here both come from this machine.

``uv`` is the real one, told to take the machine's Python; ``curl`` answers for uv's installer and is the real one otherwise.
Nodes find packages where pip finds them here.
"""

import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

from tests.sky.site import Site

UV = """#!/bin/bash
export UV_PYTHON_DOWNLOADS=never SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt UV_HTTP_TIMEOUT=180
{settings}
words=()
while [ $# -gt 0 ]; do
  if [ "$1" = --python ] && [ "$2" = 3.10 ]; then words+=(--python {python}); shift 2; else words+=("$1"); shift; fi
done
exec {real} "${{words[@]}}"
"""

CURL = """#!/bin/bash
case "$*" in
  *astral.sh/uv/install.sh*) echo 'mkdir -p "$UV_INSTALL_DIR" && ln -sf {shims}/uv "$UV_INSTALL_DIR/uv"'; exit 0;;
esac
exec /usr/bin/curl "$@"
"""


def system_python() -> Path:
    """A Python that is not a virtual environment's, and that every user of this machine may run."""
    for name in ("python3.10", "python3.11", "python3.12", "python3"):
        for folder in ("/usr/bin", "/usr/local/bin"):
            path = Path(folder, name)
            if path.exists():
                return path
    return Path(sys.base_prefix, "bin", "python3")


def write_shims(site: Site) -> None:
    """Write them, anew each time."""
    import uv

    site.shims.mkdir(parents=True, exist_ok=True)
    real = site.shims / "uv-real"
    if not real.exists():
        shutil.copy2(uv.find_uv_bin(), real)
    settings = "\n".join(f"export {name}={shlex.quote(value)}" for name, value in uv_settings().items())
    texts = {
        "uv": UV.format(python=system_python(), real=real, settings=settings),
        "curl": CURL.format(shims=site.shims),
    }
    for name, text in texts.items():
        path = site.shims / name
        path.write_text(text)
        path.chmod(0o755)


def pip_settings() -> dict[str, str]:
    """Where pip finds packages on this machine, beside PyPI: option → value."""
    command = [sys.executable, "-m", "pip", "config", "list"]
    listed = subprocess.run(command, capture_output=True, text=True, check=False).stdout
    found = dict(re.findall(r"^(?:global|:env:)\.([a-z-]+)='(.*)'$", listed, re.MULTILINE))
    return {
        option: found[option].replace("\\n", " ")
        for option in ("index-url", "extra-index-url", "find-links")
        if option in found
    }


def pip_conf() -> str:
    """The same for pip on a node."""
    return "\n".join(["[global]", *(f"{option} = {value}" for option, value in pip_settings().items())]) + "\n"


def uv_settings() -> dict[str, str]:
    """The same for uv, which is told to choose among places as pip does."""
    places = {f"UV_{option.replace('-', '_').upper()}": value for option, value in pip_settings().items()}
    return places | {"UV_INDEX_STRATEGY": "unsafe-best-match"}
