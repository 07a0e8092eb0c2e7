"""Measuring one stage, alone in a process: ``python -m stages.profile``, driven by :mod:`stages.profile_wire`.

The stage is loaded through its adapter like in a worker, and each request is timed whole: from what arrived to what is
handed on. The process ends with its parent, whatever it is doing.
"""

import logging
import os
import queue
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

import msgspec

from planner.precision import OFFLOAD, is_quantised, split_precision
from stages import memory
from stages.models import registry
from stages.models.base import File, Job, ModelError, RequestError, StageModel
from stages.parcel import Parcel, ParcelError
from stages.parcel_file import read_parcel, write_parcel
from stages.profile_wire import (
    Answer,
    Blank,
    BlankModel,
    Loaded,
    LoadStage,
    Measure,
    Measured,
    Order,
    Progress,
    Trouble,
)
from stages.worker import die_with_parent

WARM_STEPS: Final = 2  # enough for kernels to be chosen and caches to be filled
PROGRESS_S: Final = 0.2
SETTLED_S: Final = 0.2  # shorter measurements are noise: they are repeated
SHORT_FACTOR: Final = 5  # so many times as often as asked, at most
Say = Callable[[Answer], None]


class Bench:
    """One loaded stage."""

    def __init__(self, order: LoadStage) -> None:
        adapter = registry.choose(order.source)
        self.meter = memory.Meter(order.device)
        self.meter.reset()
        begin = time.perf_counter()
        self.model: StageModel = adapter.load(order.source, order.stage, order.device)
        self.meter.wait()
        load_s = time.perf_counter() - begin
        if order.randomise:
            from stages.models.blank import randomise

            randomise(memory.parameters())
        held, seen = memory.weights()
        self.weights_bytes = held or int(getattr(self.model, "peak_bytes", 0))
        self.loaded = Loaded(load_s, self.weights_bytes, _precision(order, seen))

    def measure(self, order: Measure, say: Say) -> Measured:
        """Warm up, then time the request."""
        params = msgspec.json.decode(order.params, type=dict[str, object])
        inputs = read_parcel(Path(order.input)) if order.input is not None else None
        self.meter.reset()
        self._warm_up(params, inputs, say)
        seconds: list[float] = []
        result: Parcel | File | None = None
        while _again(seconds, order):
            result = None
            self.meter.wait()
            begin = time.perf_counter()
            job = self.model.start(params, inputs)
            _steps(job, len(seconds) + 1, say)
            result = job.finish()
            self.meter.wait()
            seconds.append(time.perf_counter() - begin)
        peak = max(self.meter.peak_bytes(), self.weights_bytes)
        if isinstance(result, Parcel):
            write_parcel(Path(order.output), result)
            return Measured(tuple(seconds), peak, result.nbytes)
        return Measured(tuple(seconds), peak, len(result.data) if result else 0)

    def _warm_up(self, params: dict[str, object], inputs: Parcel | None, say: Say) -> None:
        job = self.model.start(params, inputs)
        if job.total_steps <= WARM_STEPS:
            _steps(job, 0, say)
            job.finish()
        else:
            _steps(job, 0, say, WARM_STEPS)
        self.meter.wait()


def _precision(order: LoadStage, seen: str) -> str:
    """As rows call it: what most weights are held in, or what they were quantised to. The CPU has nowhere to offload to."""
    base, offload = split_precision(order.source.precision)
    name = base if is_quantised(base) else seen
    return name + OFFLOAD if offload and order.device != "cpu" else name


def _again(seconds: list[float], order: Measure) -> bool:
    """As often as asked, more often where it takes no time, less often where it takes too long."""
    spent, wanted = sum(seconds), order.repeats
    if spent < SETTLED_S:
        wanted *= SHORT_FACTOR
    return not seconds or (len(seconds) < wanted and spent < order.patience_s)


def _steps(job: Job, run: int, say: Say, limit: int | None = None) -> None:
    said = time.perf_counter()
    for done in range(1, (limit or job.total_steps) + 1):
        more = job.step()
        if time.perf_counter() - said > PROGRESS_S:
            said = time.perf_counter()
            say(Progress(run, done, job.total_steps))
        if not more:
            return


def obey(order: Order, bench: Bench | None, say: Say) -> Bench | None:
    """Carry out one order and answer it."""
    match order:
        case LoadStage():
            bench = Bench(order)
            say(bench.loaded)
        case Measure():
            if bench is None:
                say(Trouble("error", "nothing is loaded"))
            else:
                say(bench.measure(order, say))
        case BlankModel():
            from stages.models.blank import write_blank
            from stages.models.weights import configs

            write_blank(configs(order.source), Path(order.target), order.source.dtype)
            say(Blank())
    return bench


def trouble(err: Exception) -> Trouble:
    """What the parent is told of an exception."""
    text = f"{err}".partition("\n")[0] or type(err).__name__
    if isinstance(err, RequestError):
        return Trouble("request", text)
    if isinstance(err, MemoryError) or type(err).__name__ == "OutOfMemoryError":
        return Trouble("memory", text)
    if isinstance(err, ModelError | ParcelError):
        return Trouble("model", text)
    return Trouble("error", f"{type(err).__name__}: {text}")


def main() -> None:
    """Entry point of the process."""
    die_with_parent()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides
    logging.basicConfig(level=logging.WARNING, stream=sys.stderr)
    answers = os.fdopen(os.dup(1), "wb", buffering=0)
    os.dup2(2, 1)  # what libraries print is no answer
    orders: queue.SimpleQueue[bytes] = queue.SimpleQueue()
    threading.Thread(target=_listen, args=(orders,), name="orders", daemon=True).start()
    bench: Bench | None = None

    def say(answer: Answer) -> None:
        answers.write(msgspec.json.encode(answer) + b"\n")

    while True:
        line = orders.get()
        try:
            bench = obey(msgspec.json.decode(line, type=Order), bench, say)
        except Exception as err:  # whatever an engine raises, the parent hears of it
            logging.getLogger("stages.profile").warning("failed", exc_info=True)
            say(trouble(err))


def _listen(orders: "queue.SimpleQueue[bytes]") -> None:
    """Orders come in; their end is ours, also in the middle of a computation."""
    for line in sys.stdin.buffer:
        orders.put(line)
    os._exit(0)


if __name__ == "__main__":
    main()
