"""Which machines to launch, drain, release and close: from what is wished for and what is seen. Pure.

A machine's row exists before the machine does and is closed only after its provider has twice listed it gone. Whatever cannot
be explained is released: paying for a machine that does nothing is worse than launching another. Level-triggered: the same
question a moment later gets the same answer, so an action that was lost is asked for again.
"""

from collections.abc import Mapping, Sequence
from typing import Final, Literal

import msgspec

from planner.run.fleet import NodeWish

State = Literal["requested", "launching", "up", "draining", "releasing", "lost"]
Listed = Literal["", "launching", "up", "failed", "gone"]

DOUBT_S: Final = 3.0  # silence that lets us believe a list which lacks the machine
SILENT_S: Final = (
    75.0  # of an agent whose machine is listed: longer than a partition of a minute, and it will not come back
)
JOIN_S: Final = 900.0  # from the machine's start to its agent's first word: set-up of the environment, at most
LAUNCH_S: Final = 3600.0  # a launch that takes longer is given up
DRAIN_S: Final = 2400.0
RELEASE_AGAIN_S: Final = 15.0
CONFIRMATIONS: Final = 2
SETTLED_S: Final = 120.0  # a machine lost before this age counts against its wish, as a failed launch does

FIRST_PAUSE_S: Final = 1.0
CAPACITY_PAUSE_S: Final = 15.0
LONGEST_PAUSE_S: Final = 600.0
MOST_FAILURES: Final = 8
GIVEN_UP_S: Final = 3600.0
HOPELESS: Final = frozenset({"impossible", "credentials"})  # until somebody changes something


class Machine(msgspec.Struct, frozen=True):
    """One machine that may exist. Ages in seconds.

    ``age_s``: since its row was made, ``state_s``: since it came into its state. ``silent_s``: since its agent was last
    heard; None: never. ``listed``: its provider's last word, "" before the first; ``confirmed``: how often in a row the
    provider has listed it gone. ``workers``: processes that it still runs. ``acting``: a call about it is under way.
    """

    node: str
    wish: str
    state: State
    age_s: float
    state_s: float
    silent_s: float | None = None
    listed: Listed = ""
    confirmed: int = 0
    workers: int = 0
    acting: bool = False
    why: str = ""


class Trouble(msgspec.Struct, frozen=True):
    """What keeps a wish from being tried again at once. ``kind``: a provider's failure, ``lost`` or ``over_budget``."""

    kind: str
    failures: int
    not_before_s: float

    @property
    def given_up(self) -> bool:
        """Whether it is tried only now and then, if at all."""
        return self.kind in HOPELESS or self.failures >= MOST_FAILURES


class Launch(msgspec.Struct, frozen=True):
    """Make one more machine for the wish."""

    wish: NodeWish


class Fail(msgspec.Struct, frozen=True):
    """The launch came to nothing: note the trouble, then release what may be left."""

    node: str


class Lose(msgspec.Struct, frozen=True):
    """The machine does no more for us: its work goes elsewhere, and it is released. ``young``: it never did much."""

    node: str
    why: str
    young: bool = False


class Drain(msgspec.Struct, frozen=True):
    """Let its workers finish, and give it nothing new."""

    node: str
    why: str


class Release(msgspec.Struct, frozen=True):
    """Have the provider end it (again)."""

    node: str


class Close(msgspec.Struct, frozen=True):
    """It is gone for sure."""

    node: str


Action = Launch | Fail | Lose | Drain | Release | Close


def troubled(before: Trouble | None, kind: str, now: float) -> Trouble:
    """One more failure of a wish: the pause doubles from a second (a lost machine) or a quarter of a minute (no capacity)."""
    failures = before.failures + 1 if before is not None else 1
    first_s = FIRST_PAUSE_S if kind == "lost" else CAPACITY_PAUSE_S
    pause_s = min(LONGEST_PAUSE_S, first_s * 2 ** min(failures - 1, 16))
    if kind in HOPELESS or failures >= MOST_FAILURES:
        pause_s = GIVEN_UP_S
    return Trouble(kind, failures, now + pause_s)


def reconcile(
    wishes: Sequence[NodeWish],
    machines: Sequence[Machine],
    troubles: Mapping[str, Trouble],
    now: float,
    lag_s: float = 0.0,
) -> list[Action]:
    """What to do now. ``lag_s``: for how long the provider's list may lack a machine that was launched."""
    actions: list[Action] = []
    serving: dict[str, list[Machine]] = {}
    failing: set[str] = set()  # wishes whose pause begins with this turn's actions
    for machine in machines:
        found = None if machine.acting else _judge(machine, lag_s)
        if found is not None:
            actions.append(found)
        if isinstance(found, Fail) or (isinstance(found, Lose) and found.young):
            failing.add(machine.wish)
        if machine.state in {"requested", "launching", "up"} and not isinstance(found, Fail | Lose):
            serving.setdefault(machine.wish, []).append(machine)
    wanted = {wish.key: wish for wish in wishes}
    for key, mine in serving.items():
        count = wanted[key].count if key in wanted else 0
        actions += _surplus(mine, count, "no longer wished for" if count == 0 else f"{count} wished for")
    for wish in wishes:
        missing = wish.count - len(serving.get(wish.key, ()))
        trouble = troubles.get(wish.key)
        if missing > 0 and wish.key not in failing and (trouble is None or now >= trouble.not_before_s):
            actions += [Launch(wish)] * (1 if trouble is not None else missing)  # after trouble, one to see how it goes
    return actions


def _judge(machine: Machine, lag_s: float) -> Action | None:
    match machine.state:
        case "requested" | "launching" | "up":
            return _judge_serving(machine, lag_s)
        case "draining":
            if _gone(machine, lag_s):
                return Lose(machine.node, "its provider has it no more")
            return Release(machine.node) if machine.workers == 0 or machine.state_s > DRAIN_S else None
        case "releasing" | "lost":
            if machine.confirmed >= CONFIRMATIONS and machine.age_s >= lag_s:
                return Close(machine.node)
            there = machine.listed not in {"gone", "failed"}
            return Release(machine.node) if there and machine.state_s >= RELEASE_AGAIN_S else None


def _judge_serving(machine: Machine, lag_s: float) -> Action | None:
    young = machine.age_s < SETTLED_S
    if machine.listed == "failed":
        return Fail(machine.node)
    if _gone(machine, lag_s):
        return Lose(machine.node, "its provider has it no more", young)
    if machine.silent_s is not None and machine.silent_s > SILENT_S:
        return Lose(machine.node, f"no word from its agent for {machine.silent_s:.0f} s", young)
    if machine.silent_s is None and machine.state == "up" and machine.state_s > JOIN_S:
        return Lose(machine.node, f"its agent did not report within {JOIN_S:.0f} s", young=True)
    if machine.state != "up" and machine.age_s > LAUNCH_S:
        return Lose(machine.node, f"it was not there after {LAUNCH_S / 60:.0f} min", young=True)
    return None


def _gone(machine: Machine, lag_s: float) -> bool:
    """Whether to believe a list that lacks the machine: not while its agent talks, nor while the list may lag behind."""
    if machine.listed != "gone":
        return False
    return lag_s <= 0 or (machine.age_s >= lag_s if machine.silent_s is None else machine.silent_s > DOUBT_S)


def _surplus(mine: Sequence[Machine], count: int, why: str) -> list[Action]:
    """Those that cost least to part with go first: not there yet, then those without workers, then the youngest."""
    order = sorted(mine, key=lambda m: (m.state == "up", m.workers > 0, m.state_s, m.node))
    extra = [machine for machine in order[: max(0, len(mine) - count)] if not machine.acting]
    return [Drain(machine.node, why) for machine in extra]
