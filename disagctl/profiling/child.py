"""A measuring process, seen from outside. It never outlives its ``with`` block, nor us."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Final, Self, TypeVar

import msgspec

from disagctl.errors import UnexpectedError
from stages.profile_wire import Answer, Order, Progress, Trouble
from stages.settings import worker_environment

TAIL: Final = 300  # characters of a dead process's last words
_ANSWERS: Final = msgspec.json.Decoder(Answer)
T = TypeVar("T")


class StageTrouble(Exception):
    """The process could not do what it was asked; it may be asked something else. ``kind`` as in Trouble, or ``died``."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind


class Child:
    """``python -m stages.profile`` with one GPU, or none, to see."""

    def __init__(self, gpu: int | None, log: Path) -> None:
        self._log = log
        with log.open("wb") as errors:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "stages.profile"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                env=worker_environment(() if gpu is None else (gpu,)),
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, err: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.kill()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()
        self._process.wait()

    def ask(self, order: Order, wanted: type[T], progress: Callable[[Progress], None] = lambda _: None) -> T:
        """Send an order and wait for its answer. Raises StageTrouble."""
        stdin, stdout = self._process.stdin, self._process.stdout
        if stdin is None or stdout is None:
            raise UnexpectedError("the measuring process has no pipes")
        try:
            stdin.write(msgspec.json.encode(order) + b"\n")
            stdin.flush()
        except BrokenPipeError:
            raise self._died() from None
        for line in stdout:
            answer = _ANSWERS.decode(line)
            if isinstance(answer, Progress):
                progress(answer)
            elif isinstance(answer, Trouble):
                raise StageTrouble(answer.kind, answer.message)
            elif isinstance(answer, wanted):
                return answer
            else:
                raise UnexpectedError(f"the measuring process answered with a {type(answer).__name__}")
        raise self._died()

    def _died(self) -> StageTrouble:
        code = self._process.wait()
        said = self._log.read_text(errors="replace").strip().splitlines()
        last = f": {said[-1][-TAIL:]}" if said else ""
        hint = " (out of memory?)" if code == -9 else ""
        return StageTrouble("died", f"its process ended with {code}{hint}{last}")
