"""Every message that crosses a process boundary, and the limits that are checked before one is decoded.

A frame on the hub socket is one msgpack *list* of tagged messages, so that a busy peer pays for one system call a
turn and not one a message. Nothing here knows torch, zmq or threads; the wire is msgpack only, never pickle.
"""

from typing import Final

import msgspec

from planner.domain import Batch, Role, TaskRef

PROTOCOL_VERSION: Final = 1
MAX_CONTROL_BYTES: Final = 1 << 20  # one frame on a control socket (ZMQ_MAXMSGSIZE: enforced before we see it)
MAX_DATA_BYTES: Final = (1 << 20) + 4096  # one frame on a data socket: a chunk and its header
CHUNK_BYTES: Final = 1 << 20
INLINE_BYTES: Final = 32 << 10  # parcels and artefacts up to this ride in the message itself
MAX_BATCH: Final = 256  # messages in one frame
HEARTBEAT_S: Final = 1.0
LEASE_S: Final = 5.0


class ModelSource(msgspec.Struct, frozen=True):
    """Where a model comes from. ``id`` is a hub id, an absolute folder, or ``synthetic``."""

    name: str
    id: str
    revision: str | None = None
    dtype: str = "auto"
    adapter: str | None = None  # entry-point name in ``disagctl.adapters``; None = the first that supports it
    options: bytes = b"{}"  # JSON the adapter understands (the synthetic model's stages; the experts as stages …)
    precision: str = "auto"  # of the stage the source is told for: a name of planner.precision; auto: by ``dtype``
    ranks: int = 1  # GPUs that a worker of the stage computes on


# --- tensors in flight -------------------------------------------------------------------------------------------


class TensorDesc(msgspec.Struct, frozen=True, array_like=True):
    """One tensor of a parcel: C-contiguous, little-endian."""

    shape: tuple[int, ...]
    dtype: str  # torch's name without the prefix: float32, bfloat16, uint8 …
    nbytes: int
    checksum: int  # xxh3-64 of the bytes


class InlineRoute(msgspec.Struct, frozen=True, tag="inline"):
    """The bytes are here (all tensors, concatenated)."""

    data: bytes


class ShmRoute(msgspec.Struct, frozen=True, tag="shm"):
    """A file in shared memory of the host ``host``, laid out as the tensors one after another, 64-byte aligned."""

    host: str
    path: str


class ZmqRoute(msgspec.Struct, frozen=True, tag="zmq"):
    """A data server (ROUTER, CURVE) that answers chunk reads of ``Offer.key``."""

    endpoint: str
    server_key: str  # z85


class MooncakeRoute(msgspec.Struct, frozen=True, tag="mooncake"):
    """A registered slot of a Mooncake engine, a header and then the tensors as in ShmRoute, that the receiver reads.

    ``session``: host:port of the engine's present life. ``token``: the epoch that the slot's header must carry.
    """

    session: str
    address: int
    token: bytes


class RelayRoute(msgspec.Struct, frozen=True, tag="relay"):
    """An encrypted object in the service's store; ``name`` is relative to the service's prefix."""

    name: str


Route = InlineRoute | ShmRoute | ZmqRoute | MooncakeRoute | RelayRoute


class Offer(msgspec.Struct, frozen=True):
    """A parcel that its producer holds for whoever needs it: the description, and the ways to get at the bytes."""

    key: str
    tree: bytes  # msgpack of the values, each tensor replaced by Ext(1, index)
    tensors: tuple[TensorDesc, ...]
    routes: tuple[Route, ...]

    @property
    def nbytes(self) -> int:
        """Bytes of all tensors, without alignment."""
        return sum(t.nbytes for t in self.tensors)


class Artifact(msgspec.Struct, frozen=True):
    """A finished file. ``data`` is empty when it was uploaded to the head's data server under ``TaskRef.key``."""

    mime: str
    nbytes: int
    checksum: int  # xxh3-64
    data: bytes = b""


class Task(msgspec.Struct, frozen=True, omit_defaults=True):
    """One stage of one request, to be computed."""

    ref: TaskRef
    model: str
    attempt: int
    params: bytes  # JSON object, validated by the gateway; what the stages make of it is the adapter's business
    input: Offer | None = None  # the previous stage's output; for the first stage an uploaded input, if any
    resumed_at: int = 0  # not 0: ``input`` is a snapshot of this stage, taken after so many steps
    spent_s: float = 0.0  # of compute that is in the snapshot; what is told of the task later includes it
    batch: Batch | None = None  # None: computed alone
    degree: int = 0  # GPUs of its worker's that it is spread over; 0: all


# --- worker → head -----------------------------------------------------------------------------------------------


class HeldTask(msgspec.Struct, frozen=True, array_like=True):
    """A task the worker has not finished, as told in a Hello."""

    ref: TaskRef
    started: bool


class HeldOutput(msgspec.Struct, frozen=True):
    """A finished output the worker still holds, as told in a Hello; or the snapshot of a task paused after ``step`` steps."""

    ref: TaskRef
    offer: Offer | None = None
    artifact: Artifact | None = None
    step: int = 0  # 0: it is finished
    seconds: float = 0.0  # that the steps took


class Hello(msgspec.Struct, frozen=True, tag="hello"):
    """First words of a worker, and again whenever either side missed something (a new head, a lost lease, a gap).

    It restates everything, so that both sides agree again whatever was lost between them.
    """

    version: int
    worker: str
    node: str
    pid: int
    role: Role | None = None
    phase: str = "starting"
    load_s: float = 0.0
    tasks: tuple[HeldTask, ...] = ()
    held: tuple[HeldOutput, ...] = ()
    preemptible: bool = False


class Holding(msgspec.Struct, frozen=True, tag="holding"):
    """Outputs that did not fit into the Hello which follows."""

    held: tuple[HeldOutput, ...]


class Beat(msgspec.Struct, frozen=True, tag="beat"):
    """The worker's I/O thread is alive. ``head`` is the incarnation it last heard."""

    head: int = 0


class RoleReady(msgspec.Struct, frozen=True, tag="ready"):
    """Weights are loaded; tasks may come. ``load_s`` is measured; ``peak_bytes`` on the device after loading.

    ``warm``: the weights lay in the host's memory, where an earlier switch had left them. ``preemptible``: its tasks go in
    steps and can be paused between them.
    """

    role: Role
    load_s: float
    peak_bytes: int = 0
    warm: bool = False
    preemptible: bool = False


class RoleFailed(msgspec.Struct, frozen=True, tag="role_failed"):
    """The role could not be loaded. ``fatal``: no retry will help (a missing folder, an unsupported model)."""

    role: Role
    message: str
    fatal: bool = False


class Started(msgspec.Struct, frozen=True, tag="started"):
    """Compute began: from here on the attempt is charged to the request."""

    ref: TaskRef


class Step(msgspec.Struct, frozen=True, tag="step"):
    """``done`` of ``total`` denoise steps are computed."""

    ref: TaskRef
    done: int
    total: int


class Via(msgspec.Struct, frozen=True, array_like=True):
    """How a task's input came, and why that way."""

    transport: str
    why: str


class Done(msgspec.Struct, frozen=True, tag="done", omit_defaults=True):
    """The stage is computed. Exactly one of ``offer`` (more stages follow) and ``artifact`` (the last) is set."""

    ref: TaskRef
    seconds: float  # of computing it; of a batch, each member's share
    offer: Offer | None = None
    artifact: Artifact | None = None
    fetch_s: float = 0.0  # time the input took to arrive
    via: Via | None = None  # None: it was in the message
    cached: bool | None = None  # whether the result was remembered instead of computed; None: this stage forgets
    batch: int = 1  # tasks that were computed at once


class Failed(msgspec.Struct, frozen=True, tag="failed"):
    """The attempt failed. ``retry`` False: the request itself is at fault (its field ``param``): all would fail."""

    ref: TaskRef
    code: str
    message: str
    retry: bool = True
    param: str | None = None


class InputLost(msgspec.Struct, frozen=True, tag="input_lost"):
    """The input could not be fetched by any route (its holder is gone, or the bytes are not what was promised).

    ``unreachable``: nobody answered. Its holder may well be there, behind a network that lets nobody through.
    """

    ref: TaskRef
    key: str
    message: str
    unreachable: bool = False


class Returned(msgspec.Struct, frozen=True, tag="returned"):
    """A task handed back unstarted, free of charge (drain, role switch)."""

    ref: TaskRef


class Paused(msgspec.Struct, frozen=True, tag="paused"):
    """The task was stopped after ``step`` of ``total`` steps. ``offer``: the snapshot to resume it from, here or elsewhere.

    Without one the task begins anew from its input: no step was computed, or the snapshot could not be kept (``why``).
    """

    ref: TaskRef
    step: int
    total: int
    seconds: float = 0.0
    offer: Offer | None = None
    why: str = ""


class PauseRefused(msgspec.Struct, frozen=True, tag="pause_refused"):
    """The task goes on: its loop cannot be taken apart, or there is no room for its snapshot."""

    ref: TaskRef
    why: str


class Drained(msgspec.Struct, frozen=True, tag="drained"):
    """Nothing runs and nothing is held any more."""


WorkerMessage = (
    Hello
    | Holding
    | Beat
    | RoleReady
    | RoleFailed
    | Started
    | Step
    | Done
    | Failed
    | InputLost
    | Returned
    | Paused
    | PauseRefused
    | Drained
)

# --- head → worker -----------------------------------------------------------------------------------------------


class Welcome(msgspec.Struct, frozen=True, tag="welcome"):
    """Answer to Hello and Beat: which incarnation of the head speaks."""

    head: int


class Who(msgspec.Struct, frozen=True, tag="who"):
    """The head has no row for this peer: say Hello again."""


class SetRole(msgspec.Struct, frozen=True, tag="set_role"):
    """Become this role; with another one loaded, drain and switch. What was made in the old one stays readable."""

    role: Role
    source: ModelSource


class Assign(msgspec.Struct, frozen=True, tag="assign"):
    """A task against one of the worker's credits."""

    task: Task


class Cancel(msgspec.Struct, frozen=True, tag="cancel"):
    """Stop at the next step boundary and forget it; no answer is expected."""

    ref: TaskRef


class Pause(msgspec.Struct, frozen=True, tag="pause"):
    """Stop at the next step boundary, keep a snapshot, answer Paused; if it has not begun, hand it back. Or PauseRefused."""

    ref: TaskRef


class Spread(msgspec.Struct, frozen=True, tag="spread"):
    """Compute the task on so many of the worker's GPUs from the next step boundary on; no answer is expected."""

    ref: TaskRef
    degree: int


class Release(msgspec.Struct, frozen=True, tag="release"):
    """These outputs are no longer needed."""

    keys: tuple[str, ...]


class Drain(msgspec.Struct, frozen=True, tag="drain"):
    """Take nothing new, hand back what has not started, finish the rest."""


class Peers(msgspec.Struct, frozen=True, tag="peers"):
    """CURVE public keys (z85) that may read from this worker's data server: all enrolled nodes."""

    keys: tuple[str, ...]


class Reach(msgspec.Struct, frozen=True, tag="reach"):
    """Which routes offers need. ``shared``: hosts with more than one worker. ``several``: there is more than one host.

    ``relay``: some worker could not reach this one, so outputs go to the store as well.
    """

    shared: tuple[str, ...]
    several: bool
    relay: bool = False


HeadMessage = Welcome | Who | SetRole | Assign | Cancel | Pause | Spread | Release | Drain | Peers | Reach

# --- agent ↔ head ------------------------------------------------------------------------------------------------


class GpuInfo(msgspec.Struct, frozen=True):
    """One accelerator of a node."""

    index: int
    name: str
    memory_bytes: int


class WorkerVitals(msgspec.Struct, frozen=True):
    """What the agent sees of a worker process from outside. state: running | stopped | exited."""

    worker: str
    slot: str
    pid: int
    state: str
    exit_code: int | None = None
    rss_bytes: int = 0
    computing: tuple[TaskRef, ...] = ()  # of an exited worker: what it was computing when it ended, several in a batch


class Neighbour(msgspec.Struct, frozen=True):
    """Another node, and where to knock (``host|port``) to see whether it can be reached."""

    node: str
    endpoint: str


class Reached(msgspec.Struct, frozen=True, tag="reached"):
    """The node ``node`` was knocked at: ``ms`` until it answered; None: it did not."""

    node: str
    ms: float | None


class AgentHello(msgspec.Struct, frozen=True, tag="agent_hello"):
    """First words of a node's agent, and again when the head asks Who. ``doorbell``: where others may knock."""

    version: int
    node: str
    host: str
    pid: int
    cpus: int
    memory_bytes: int
    gpus: tuple[GpuInfo, ...] = ()
    workers: tuple[WorkerVitals, ...] = ()
    note: str = ""  # what this node cannot do although the spec asks for it, and what it does instead
    doorbell: str = ""


class AgentBeat(msgspec.Struct, frozen=True, tag="agent_beat"):
    """The agent vouches for its workers' processes. Sent every HEARTBEAT_S and at once when one ends."""

    head: int
    workers: tuple[WorkerVitals, ...] = ()


class Notice(msgspec.Struct, frozen=True, tag="notice"):
    """The node will be taken away soon: what it computes should go on elsewhere."""

    why: str


AgentMessage = AgentHello | AgentBeat | Reached | Notice


class WorkerWish(msgspec.Struct, frozen=True):
    """The head wants a worker process in this slot."""

    slot: str
    gpu: int | None = None
    generation: int = 0  # a higher one replaces the process in the slot (a hung worker)
    beside: tuple[int, ...] = ()  # further GPUs that it computes on

    @property
    def gpus(self) -> tuple[int, ...]:
        """All GPUs that it is to be shown; none: it computes on the CPU."""
        return () if self.gpu is None else (self.gpu, *self.beside)


class Wishes(msgspec.Struct, frozen=True, tag="wishes"):
    """The complete list of workers the node shall run; level-triggered, so repeating it is harmless."""

    workers: tuple[WorkerWish, ...]


class Shutdown(msgspec.Struct, frozen=True, tag="shutdown"):
    """End every worker, clean up, exit."""


class Knock(msgspec.Struct, frozen=True, tag="knock"):
    """Try to reach these nodes, and say what came of it."""

    neighbours: tuple[Neighbour, ...]


AgentOrder = Welcome | Who | Wishes | Shutdown | Peers | Knock
