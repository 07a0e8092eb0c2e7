"""``python -m disagctl.headnode.watch SERVICE``, there: starts a head that died again.

Ends when there is no service (any more), and with it the machine's only job, so that the machine ends as well.
"""

import logging
import sys
import time
from typing import Final

from disagctl import lifecycle
from disagctl.errors import DisagctlError
from disagctl.provision.local import alive
from disagctl.spec import load_spec
from disagctl.state import ServicePaths, paths, read_record

log = logging.getLogger(__name__)

LOOK_S: Final = 2.0
ORDERS_S: Final = 1800.0  # for orders to come
STOPPED_S: Final = 1800.0  # for `down` to finish what it began


def main() -> int:
    """Exit code 1: orders never came."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s", stream=sys.stderr)
    where = paths(sys.argv[1])
    began = stopped = time.monotonic()
    while not where.record.exists():
        if time.monotonic() - began > ORDERS_S:
            log.error("no orders within %g s", ORDERS_S)
            return 1
        time.sleep(LOOK_S)
    while where.record.exists():
        record = read_record(where)
        if not record.stopping:
            stopped = time.monotonic()
            if record.head_pid is not None and not alive(record.head_pid, record.head_started):
                _start(where)
        elif time.monotonic() - stopped > STOPPED_S:
            log.error("it was stopped, and nobody took it down")
            return 0
        time.sleep(LOOK_S)
    return 0


def _start(where: ServicePaths) -> None:
    try:
        lifecycle.begin(where, load_spec(where.spec, check_files=False), None)
        log.info("the head had died, and is started again")
    except DisagctlError as err:  # also while `up` is at it
        log.warning("%s", err)


if __name__ == "__main__":
    sys.exit(main())
