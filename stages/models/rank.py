"""A process that computes a share of each step with a worker: ``python -m stages.models.rank``, orders on standard input.

It has the stage's weights and, of a request, what the worker's snapshot says. It lives no longer than its worker.
"""

import ctypes
import os
import signal
import sys
from typing import IO, Any

import msgspec
import torch

from stages.models import groups
from stages.models.rank_wire import Begin, Broken, Leave, Load, Ready, StepOn, orders, read, write
from stages.models.registry import choose

PR_SET_PDEATHSIG = 1


class Rank:
    """Carries out orders, one after another."""

    def __init__(self, load: Load) -> None:
        self._load = load
        source = msgspec.structs.replace(load.source, ranks=1)
        model: Any = choose(source).load(source, load.stage, load.device)
        self.model = model
        groups.spreadable(model.pipeline)
        self._job: Any = None

    def obey(self, order: Begin | StepOn | Leave) -> bool:
        """Whether an answer is waited for."""
        match order:
            case Begin():
                self._begin(order)
            case StepOn():
                self._job.step()
                return False
            case Leave():
                self._job = None
                groups.leave(self.model.pipeline)
        return True

    def _begin(self, order: Begin) -> None:
        self._job = self.model.resume(msgspec.json.decode(order.params), order.snapshot)
        load, device = self._load, torch.device(self._load.device)
        groups.join(self.model.pipeline, load.folder, order.group, order.rank, order.degree, device, load.timeout_s)


def serve(given: IO[bytes], answers: IO[bytes]) -> None:
    """Until the worker is gone. Whatever goes wrong ends the process: the worker then ends too, and is replaced."""
    try:
        rank = Rank(read(given, orders))
        write(answers, Ready(int(getattr(rank.model, "peak_bytes", 0))))
        while True:
            if rank.obey(read(given, orders)):
                write(answers, Ready())
    except EOFError:
        return
    except Exception as err:  # noqa: BLE001  # boundary: an engine may raise anything
        write(answers, Broken(f"{type(err).__name__}: {err}"))


def main() -> None:
    """Entry point of the process."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what libraries print is no answer
    try:
        serve(sys.stdin.buffer, answers)
    except BrokenPipeError:
        pass
    finally:
        os._exit(0)


if __name__ == "__main__":
    main()
