"""``python -m disagctl.headnode.results FILE…``, there: these files as a tar stream on standard output."""

import sys
import tarfile
from pathlib import Path


def main() -> None:
    """Names alone: where they lay is nobody's business."""
    with tarfile.open(fileobj=sys.stdout.buffer, mode="w|") as archive:
        for path in map(Path, sys.argv[1:]):
            archive.add(path, arcname=path.name, recursive=False)


if __name__ == "__main__":
    main()
