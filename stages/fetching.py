"""An input's way here, tried more than once."""

import logging
import time
from typing import Final

from planner.domain import TaskRef
from stages.parcel import Parcel
from stages.protocol import Offer
from stages.transport.base import Fetcher, FetchError

log = logging.getLogger(__name__)

FETCH_TRIES: Final = 3  # before the stage that made the input has to compute it again


def try_fetch(ref: TaskRef, offer: Offer, fetcher: Fetcher, end: float) -> Parcel:
    """Bytes that were lost or damaged on the way are asked for again; what is gone is not. Raises FetchError."""
    for left in reversed(range(FETCH_TRIES)):
        try:
            return fetcher.fetch(offer, end - time.monotonic())
        except FetchError as err:
            if err.gone or err.unreachable or left == 0 or time.monotonic() >= end:
                raise
            log.info("input of %s/%s, again: %s", ref.request, ref.stage, err)
    raise AssertionError  # the last try returns or raises
