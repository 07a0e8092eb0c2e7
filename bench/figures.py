"""How a figure is printed."""

from typing import Literal

import msgspec


class Figure(msgspec.Struct, omit_defaults=False):
    """One measured number. ``peer``: what it was measured against in the same run, if anything."""

    figure: str
    value: float
    unit: str
    bar: float | None
    better: Literal["higher", "lower"]
    peer: str | None = None
    peer_value: float | None = None

    @property
    def met(self) -> bool:
        """Whether the bar is reached; figures without one always do."""
        if self.bar is None:
            return True
        return self.value >= self.bar if self.better == "higher" else self.value <= self.bar

    def line(self) -> str:
        """One line of JSON."""
        return msgspec.json.encode(self).decode()


def rounded(value: float) -> float:
    """Four significant digits: more would be pretence."""
    return float(f"{value:.4g}")


def ratio(
    name: str, ours: float, peers: float, bar: float, better: Literal["higher", "lower"], peer: str, unit: str = "x"
) -> Figure:
    """Ours over the peer's, both of one run. Raises RuntimeError when the peer finished nothing in the time it had."""
    if not peers:
        msg = f"{name}: the peer finished nothing; the machine is too busy, or --seconds too few"
        raise RuntimeError(msg)
    return Figure(name, rounded(ours / peers), unit, bar, better, peer, rounded(peers))
