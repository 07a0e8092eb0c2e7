"""Small fleets, made-up models and random Views for the dispatch policies."""

from hypothesis import strategies as st

from planner.domain import Role, Shape
from planner.run.orders import Instance, Job, Running, View
from planner.sim.coserve.fleet import Gpu
from planner.sim.coserve.laws import STAGES, Laws, ModelProfile, Profiles, Size
from planner.sim.coserve.workload import Arrival

IMAGE, VIDEO = Shape(512, 512, 1, 20), Shape(832, 480, 81, 50)
SHAPES = {"image": IMAGE, "video": VIDEO}
ROLES = frozenset(Role(model, stage) for model in SHAPES for stage in STAGES)


def laws() -> Laws:
    """An image of 2 s and a video of 50 s, on one GPU."""
    weights = {"encode": 5.0, "denoise": 10.0, "decode": 0.5}
    image = ModelProfile("image", weights, 0.1, 0.1, Size(512, 512), 0.8, 0.1, 0.1, 0.1)
    video = ModelProfile("video", weights, 0.5, 1.0, Size(832, 480, 81), 0.3, 0.02, 0.05, 0.05)
    return Laws(Profiles("H100", 79.0, 1.0, 0.05, (image, video)))


def gpus(count: int, residents: frozenset[Role] = ROLES) -> list[Gpu]:
    """One node of them."""
    return [Gpu(f"g{index}", "n0", residents, 79.0, joins=True) for index in range(count)]


def arrivals(*rows: tuple[float, str], scale: float = 3.0) -> list[Arrival]:
    """(when, model), each with an objective of so many times its isolated latency."""
    found = []
    for at_s, model in rows:
        shape = SHAPES[model]
        found.append(Arrival(at_s, model, shape, at_s + scale * laws().isolated_s(model, shape), model == "video"))
    return found


def job(name: str, model: str, seq: int, left: int | None = None, due_s: float | None = None, pauses: int = 0) -> Job:
    """One that waits for denoising."""
    shape = SHAPES[model]
    key = f"{model}" if left in {None, shape.steps} else ""
    return Job(
        name, Role(model, "denoise"), shape, 0.0, seq, shape.steps, shape.steps if left is None else left,
        deadline_s=due_s, pauses=pauses, after=("decode",), batch_key=key,
    )  # fmt: skip


@st.composite
def views(draw: st.DrawFn) -> View:
    """Two nodes of four GPUs, some busy, with up to twelve requests that wait."""
    instances, running, pending = [], [], []
    model, due = st.sampled_from(["image", "video"]), st.one_of(st.none(), st.floats(0.0, 300.0))
    for index in range(8):
        busy = draw(st.booleans())
        residents = ROLES if draw(st.booleans()) else frozenset(role for role in ROLES if role.model == "image")
        instances.append(Instance(f"g{index}", f"n{index // 4}", "H100", residents, int(not busy), (1,), True, 79.0))
        if busy:
            one = job(f"r{index}", draw(model), index, draw(st.integers(1, 20)), draw(due), draw(st.integers(0, 3)))
            running.append(Running(f"g{index}", (one,), 9.5, pausing=draw(st.booleans())))
    for index in range(draw(st.integers(0, 12))):
        left = draw(st.one_of(st.none(), st.integers(1, 20)))
        pending.append(job(f"p{index}", draw(model), 100 + index, left, draw(due), draw(st.integers(0, 3))))
    return View(tuple(pending), tuple(running), tuple(instances))
