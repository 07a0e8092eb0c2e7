"""The worker as a state machine: messages and completions in, instructions out. No sockets, threads, clock or torch.

A worker has one role at a time and computes one task at a time. Around it, tasks whose input is still to come are
fetched ahead, and finished outputs are handed to a sender, so that moving bytes never holds up computing. Whatever is
not yet known to be safe downstream (``held``) is restated in every Hello, as are unfinished tasks; that makes lost
messages harmless. It outlives the role: a worker that becomes something else finishes its tasks, and does not wait
until others have fetched what it made.

Life of a task: queued → fetching → ready → computing → publishing → held (until the head releases it). A task that is
paused takes the same way: what is published is then the snapshot between two of its steps.
"""

from collections import OrderedDict
from typing import Final

from planner.domain import Role, TaskRef
from stages.instructions import (
    AllowPeers,
    Compute,
    Fetch,
    Forget,
    Instruction,
    Load,
    Publish,
    Send,
    SetDegree,
    SetReach,
    Stop,
    Suspend,
    Unload,
)
from stages.line import COMPUTING, FETCHING, PUBLISHING, QUEUED, READY, Held, Line, gather
from stages.protocol import (
    MAX_CONTROL_BYTES,
    PROTOCOL_VERSION,
    Artifact,
    Assign,
    Beat,
    Cancel,
    Done,
    Drain,
    Drained,
    Failed,
    HeadMessage,
    HeldOutput,
    HeldTask,
    Hello,
    Holding,
    InlineRoute,
    InputLost,
    ModelSource,
    Offer,
    Pause,
    Paused,
    PauseRefused,
    Peers,
    Reach,
    Release,
    Returned,
    RoleFailed,
    RoleReady,
    SetRole,
    Spread,
    Started,
    Step,
    Task,
    Via,
    Welcome,
    Who,
)

MAX_FETCHES: Final = 4  # at a time: one that is late does not hold up those behind it

# Tasks in the compute thread's hands behind the one it computes, so that it goes on at once and not after a word with us;
# more of them when the last task was shorter than a few such words.
AHEAD: Final = 1
BRISK_AHEAD: Final = 8
BRISK_S: Final = 0.002

HELLO_BYTES: Final = MAX_CONTROL_BYTES // 4  # of held outputs in one message

STOP_BEATS: Final = 600  # heartbeats that a step may go on after its task was cancelled


def weight(output: HeldOutput) -> int:
    """About how many bytes an output takes in a Hello."""
    size = 512
    if output.artifact is not None:
        size += len(output.artifact.data)
    if output.offer is not None:
        inline = (len(route.data) for route in output.offer.routes if isinstance(route, InlineRoute))
        size += len(output.offer.tree) + 64 * len(output.offer.tensors) + sum(inline)
    return size


class WorkerCore:
    """Events are methods; each returns the instructions that follow from it."""

    def __init__(self, worker: str, node: str, pid: int, *, synchronous: bool = False) -> None:
        self.worker, self.node, self.pid = worker, node, pid
        self.synchronous = synchronous  # the ablation: no fetching ahead, no computing while sending
        self.role: Role | None = None
        self.phase = "starting"
        self.preemptible = False
        self.load_s = 0.0
        self.head = 0  # incarnation last heard
        self.tasks: OrderedDict[TaskRef, Held] = OrderedDict()
        self.held: dict[str, HeldOutput] = {}
        self.stop_beats = STOP_BEATS
        self.stopping_beats = 0
        self._next: SetRole | None = None
        self._source: ModelSource | None = None
        self._line = Line()
        self._hearing = False  # more messages of this turn may follow, and more members of a batch with them
        self._ahead = AHEAD
        self._light = False  # tasks of this role are computed at once, on the thread that owns us

    @property
    def computing(self) -> bool:
        """Whether the compute thread has something to do."""
        return bool(self._line)

    # --- from the head ----------------------------------------------------------------------------------------

    def message(self, message: HeadMessage) -> list[Instruction]:  # noqa: C901, PLR0911  # a table
        """One message from the head."""
        match message:
            case Assign(task=task):
                return self._assign(task)
            case Release(keys=keys):
                return self._release(keys)
            case Cancel(ref=ref):
                return self._cancel(ref)
            case Pause(ref=ref):
                return self._pause(ref)
            case Spread(ref=ref, degree=degree):
                return [SetDegree(ref, degree)] if ref in self.tasks else []
            case Welcome(head=head):
                return self._welcome(head)
            case Who():
                return self.restate()
            case SetRole():
                return self._set_role(message)
            case Drain():
                self._next = None
                return self._drain()
            case Peers(keys=keys):
                return [AllowPeers(keys)]
            case Reach():
                return [SetReach(message)]

    def settle(self) -> list[Instruction]:
        """All messages that came together have been told: batches are complete."""
        hearing, self._hearing = self._hearing, False
        return self._advance() if hearing else []

    def restate(self) -> list[Instruction]:
        """Everything the head needs to know of us: a Hello, and before it what is too much for one message."""
        parts: list[tuple[HeldOutput, ...]] = [()]
        room = HELLO_BYTES
        for output in self.held.values():
            size = weight(output)
            if size > room and parts[-1]:
                parts.append(())
                room = HELLO_BYTES
            parts[-1] += (output,)
            room -= size
        return [*(Send(Holding(part)) for part in parts[:-1]), Send(self.hello(parts[-1]))]

    def hello(self, held: tuple[HeldOutput, ...] | None = None) -> Hello:
        """The Hello with these outputs (None: all)."""
        return Hello(
            PROTOCOL_VERSION,
            self.worker,
            self.node,
            self.pid,
            self.role,
            self.phase,
            self.load_s,
            tuple(HeldTask(h.task.ref, h.started) for h in self.tasks.values() if not h.cancelled),
            tuple(self.held.values()) if held is None else held,
            self.preemptible,
        )

    def beat(self) -> list[Instruction]:
        """Once a heartbeat. While a task that was cancelled long ago still computes, there is none: the head replaces us.

        Nobody else would notice, for the head has forgotten the task, and a thread that hangs cannot be ended.
        """
        stopping = any(h.cancelled and h.state == COMPUTING for h in self.tasks.values())
        self.stopping_beats = self.stopping_beats + 1 if stopping else 0
        if self.stopping_beats > self.stop_beats:
            return []
        beat: list[Instruction] = [Send(Beat(self.head))]
        return beat + self._advance() if self._line.tire(self.tasks.values()) else beat

    def gap(self) -> list[Instruction]:
        """Frames from the head went missing."""
        return self.restate()

    # --- the model --------------------------------------------------------------------------------------------

    def loaded(
        self,
        role: Role,
        load_s: float,
        peak_bytes: int,
        *,
        warm: bool = False,
        light: bool = False,
        preemptible: bool = False,
    ) -> list[Instruction]:
        """The weights are there. ``warm``: they came from host memory. ``light``: tasks take next to no time."""
        self.role, self.phase, self.load_s, self._light, self.preemptible = role, "ready", load_s, light, preemptible
        ready: list[Instruction] = [Send(RoleReady(role, load_s, peak_bytes, warm, preemptible))]
        return ready + self._advance()

    def load_failed(self, role: Role, message: str, *, fatal: bool) -> list[Instruction]:
        """The weights could not be loaded."""
        self.role, self.phase, self._source = None, "starting", None
        failed: list[Instruction] = [Send(RoleFailed(role, message, fatal))]
        return failed + self._load(self._next) if self._next is not None else failed

    # --- the pipeline -----------------------------------------------------------------------------------------

    def fetched(self, ref: TaskRef, fetch_s: float, via: Via | None = None) -> list[Instruction]:
        """The input is here and verified."""
        held = self.tasks.get(ref)
        if held is None:
            return []
        if held.cancelled:
            return [*self._end(ref), *self._advance()]
        if self.phase == "draining":
            return [*self._end(ref), Send(Returned(ref)), *self._advance()]
        held.state, held.fetch_s, held.via = READY, fetch_s, via
        return self._advance()

    def fetch_failed(self, ref: TaskRef, message: str, *, unreachable: bool = False) -> list[Instruction]:
        """No route delivered the input."""
        self._leave(ref)
        held = self.tasks.get(ref)
        out = self._end(ref)
        if held is not None and not held.cancelled:
            key = held.task.input.key if held.task.input else ""
            out.append(Send(InputLost(ref, key, message, unreachable)))
        return out + self._advance()

    def stepped(self, ref: TaskRef, done: int, total: int) -> list[Instruction]:
        """A step was computed."""
        held = self.tasks.get(ref)
        return [] if held is None or held.cancelled else [Send(Step(ref, done, total))]

    def computed(self, ref: TaskRef, seconds: float, cached: bool | None = None, batch: int = 1) -> list[Instruction]:
        """The result is in memory; the next task may compute while this one's result is published."""
        self._leave(ref, seconds)
        held = self.tasks.get(ref)
        if held is None or held.cancelled:
            return [*self._end(ref), *self._advance()]
        held.state, held.seconds, held.cached, held.batch = PUBLISHING, seconds, cached, batch
        publish: list[Instruction] = [Publish(ref)]
        return publish + self._advance()

    def paused(self, ref: TaskRef, step: int, steps: int, seconds: float) -> list[Instruction]:
        """The task has left the compute thread between two steps, and its snapshot is in memory."""
        out = self.computed(ref, seconds)
        if (held := self.tasks.get(ref)) is not None:
            held.step, held.steps = step, steps
        return out

    def untouched(self, ref: TaskRef) -> list[Instruction]:
        """The task has left the compute thread before its first step."""
        self._leave(ref)
        held = self.tasks.get(ref)
        out = self._end(ref)
        if held is not None and not held.cancelled:
            out.append(Send(Paused(ref, 0, 0)))
        return out + self._advance()

    def pause_refused(self, ref: TaskRef, why: str) -> list[Instruction]:
        """The task cannot be paused, and goes on."""
        held = self.tasks.get(ref)
        return [] if held is None or held.cancelled else [Send(PauseRefused(ref, why))]

    def stopped(self, ref: TaskRef) -> list[Instruction]:
        """A cancelled task has left the compute thread."""
        self._leave(ref)
        return [*self._end(ref), *self._advance()]

    def compute_failed(
        self, ref: TaskRef, code: str, message: str, *, retry: bool, param: str | None = None
    ) -> list[Instruction]:
        """Computing or publishing raised. ``param`` names the request field at fault."""
        self._leave(ref)
        held = self.tasks.get(ref)
        out = self._end(ref)
        if held is not None and held.step and not held.cancelled:
            out.append(Send(Paused(ref, held.step, held.steps, held.seconds, None, message)))
        elif held is not None and not held.cancelled:
            out.append(Send(Failed(ref, code, message, retry, param)))
        return out + self._advance()

    def published(
        self,
        ref: TaskRef,
        offer: Offer | None,
        artifact: Artifact | None,
        seconds: float | None = None,
        cached: bool | None = None,
        batch: int = 1,
    ) -> list[Instruction]:
        """The result can be had by others. ``seconds`` (and what follows) come when computing and publishing were one."""
        if seconds is not None:
            self._leave(ref, seconds)
        held = self.tasks.pop(ref, None)
        if held is None or held.cancelled:
            return [Forget(ref.key), *self._advance()]
        if seconds is not None:
            held.seconds, held.cached, held.batch = seconds, cached, batch
        held.seconds += held.task.spent_s
        if held.step:
            self.held[ref.key] = HeldOutput(ref, offer, None, held.step, held.seconds)
            return [Send(Paused(ref, held.step, held.steps, held.seconds, offer)), *self._advance()]
        self.held[ref.key] = HeldOutput(ref, offer, artifact)
        news = Done(ref, held.seconds, offer, artifact, held.fetch_s, held.via, held.cached, held.batch)
        return [Send(news), *self._advance()]

    # --- inside -----------------------------------------------------------------------------------------------

    def _welcome(self, head: int) -> list[Instruction]:
        if head == self.head:
            return []
        first, self.head = self.head == 0, head
        return [] if first else self.restate()

    def _assign(self, task: Task) -> list[Instruction]:
        ref, source, role = task.ref, task.input, self.role
        if ref in self.tasks or ref.key in self.held:
            return []
        if self.phase != "ready" or role is None or ref.stage != role.stage or task.model != role.model:
            return [Send(Returned(ref))]
        remote = source is not None and not any(isinstance(r, InlineRoute) for r in source.routes)
        if source is not None and task.resumed_at and source.key in self.held:
            remote = False  # it was paused here
        if self._light and not remote and not self._line:
            self.tasks[ref] = Held(task, COMPUTING, started=True)  # over before word of its start could leave
            return [Compute(task)]
        self.tasks[ref] = Held(task, QUEUED if remote else READY)
        self._hearing = self._hearing or task.batch is not None
        return [] if not remote and len(self._line) > self._ahead else self._advance()

    def _release(self, keys: tuple[str, ...]) -> list[Instruction]:
        known = [key for key in keys if self.held.pop(key, None) is not None]
        forget: list[Instruction] = [Forget(key) for key in known]
        return forget + self._advance() if self.phase == "draining" else forget  # else it lets nothing go on

    def _cancel(self, ref: TaskRef) -> list[Instruction]:
        held = self.tasks.get(ref)
        if held is None:
            return self._release((ref.key,))
        if self._untouched(held):
            return [*self._give_up(held), *self._advance()]
        held.cancelled = True  # the thread that has it reports, then it ends
        return [Stop(ref)] if held.state == COMPUTING else []

    def _pause(self, ref: TaskRef) -> list[Instruction]:
        held = self.tasks.get(ref)
        if held is None or held.cancelled or held.state == PUBLISHING:
            return []  # what became of it is told already, or will be
        if self._untouched(held):
            return [*self._give_up(held), Send(Paused(ref, 0, 0)), *self._advance()]
        if held.state == FETCHING:
            held.cancelled = True  # the thread that has it reports, then it ends
            return [Send(Paused(ref, 0, 0))]
        return [Suspend(ref)]

    def _set_role(self, wish: SetRole) -> list[Instruction]:
        if wish.role == self.role and wish.source == self._source:
            self._next = None
            if self.phase == "ready":
                return [Send(self._ready())]
            if self.phase == "draining":
                self.phase = "ready"
                return [Send(self._ready()), *self._advance()]
            return []
        if self.phase == "loading":
            self._next = wish
            return []
        if self.role is None:
            return self._load(wish)
        self._next = wish
        return self._drain()

    def _ready(self) -> RoleReady:
        """Said again: the role that it asks for is the one we have."""
        return RoleReady(self.role or Role("", ""), self.load_s, preemptible=self.preemptible)

    def _load(self, wish: SetRole) -> list[Instruction]:
        self._next, self._source, self.role, self.phase = None, wish.source, wish.role, "loading"
        return [Load(wish.role, wish.source)]

    def _drain(self) -> list[Instruction]:
        if self.phase in ("ready", "starting"):
            self.phase = "draining"
        out: list[Instruction] = []
        for held in [h for h in self.tasks.values() if self._untouched(h)]:
            out += [*self._give_up(held), Send(Returned(held.task.ref))]
        return out + self._advance()

    def _untouched(self, held: Held) -> bool:
        """Whether nobody works on the task yet; it may be in the compute thread's line."""
        return held.state in (QUEUED, READY) or (held.state == COMPUTING and not held.started)

    def _give_up(self, held: Held) -> list[Instruction]:
        ref = held.task.ref
        if held.state != COMPUTING:
            return self._end(ref)
        del self.tasks[ref]
        return [Stop(ref)]  # the compute thread says when it has passed it by, and then it is forgotten

    def _leave(self, ref: TaskRef, seconds: float | None = None) -> None:
        """The compute thread is done with the task."""
        if self._line.leave(ref) and seconds is not None:
            self._ahead = BRISK_AHEAD if seconds < BRISK_S else AHEAD

    def _end(self, ref: TaskRef) -> list[Instruction]:
        self.tasks.pop(ref, None)
        return [Forget(ref.key)]

    def _advance(self) -> list[Instruction]:
        """Whatever can go on, goes on: one computation, the next in line behind it, and a few fetches, oldest first."""
        if not self.tasks and self.phase == "ready" and self._next is None:
            return []
        if self.phase == "draining" and not self.tasks and (self._next is not None or not self.held):
            return self._drained()
        if self.phase == "ready" and self._next is not None:
            return self._drain()
        if self.phase not in ("ready", "draining") or not self.tasks:
            return []
        out: list[Instruction] = []
        states = [h.state for h in self.tasks.values()]
        if not (self.synchronous and (PUBLISHING in states or FETCHING in states)):
            out += self._feed()
        if self.synchronous and (self._line or PUBLISHING in states):
            return out
        fetches = 1 if self.synchronous else MAX_FETCHES
        for held in [h for h in self.tasks.values() if h.state == QUEUED][: max(0, fetches - states.count(FETCHING))]:
            held.state = FETCHING
            out.append(Fetch(held.task))
        return out

    def _feed(self) -> list[Instruction]:
        """Fill the compute thread's line, and say so of the task that is now its first."""
        out: list[Instruction] = []
        room = (1 if self.synchronous else 1 + self._ahead) - len(self._line)
        if room > 0:
            for group in gather(self.tasks.values(), room, busy=bool(self._line), hearing=self._hearing):
                self._line.add([held.task.ref for held in group])
                out.append(Compute(group[0].task, tuple(held.task for held in group[1:])))
        begun = [h for ref in self._line.first if (h := self.tasks.get(ref)) is not None and not h.started]
        for held in begun:
            held.started = True
        return [*(Send(Started(held.task.ref)) for held in begun), *out]

    def _drained(self) -> list[Instruction]:
        if self._next is not None:
            self.role = None
            return [Unload(), *self._load(self._next)]
        return [Send(Drained())]
