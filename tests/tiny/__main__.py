"""``python -m tests.tiny DIR [family…]``"""

import argparse
import time
from pathlib import Path

from tests.tiny import FAMILIES, build

parser = argparse.ArgumentParser(
    prog="python -m tests.tiny", description="Build tiny random-weight model repositories."
)
parser.add_argument("directory", type=Path)
parser.add_argument("families", nargs="*", metavar="family", help=", ".join(FAMILIES))
args = parser.parse_args()
for name in args.families or FAMILIES:
    begin = time.monotonic()
    folder = build(name, args.directory / name)
    nbytes = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    print(f"{folder}: {nbytes / 1e6:.1f} MB, {time.monotonic() - begin:.1f} s", flush=True)
