"""The one place that reads the wall clock. Durations are measured with ``time.monotonic`` and never with this."""

import time


def wall_s() -> float:
    """Seconds since the epoch: for timestamps that people read, never for a time-out."""
    return time.time()  # noqa: TID251
