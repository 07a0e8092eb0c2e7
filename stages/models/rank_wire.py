"""What a worker says to the processes that compute with it, over their standard streams: msgpack frames behind their length."""

from typing import IO, Any, Final

import msgspec

from stages.parcel import Parcel
from stages.protocol import ModelSource, TensorDesc

MAX_FRAME_BYTES: Final = 8 << 30  # a snapshot: latents, embeddings, a scheduler's memory
_LENGTH_BYTES: Final = 8


class Load(msgspec.Struct, frozen=True, tag="load"):
    """First word: load the stage, meet the others in ``folder``. ``timeout_s``: of every collective operation."""

    source: ModelSource
    stage: str
    device: str
    folder: str
    timeout_s: float


class Begin(msgspec.Struct, frozen=True, tag="begin"):
    """Be ``rank`` of ``degree`` in a group of this name, and go on with a request from its snapshot."""

    group: str
    rank: int
    degree: int
    params: bytes  # JSON
    tree: bytes
    tensors: tuple[TensorDesc, ...]
    buffers: tuple[bytes, ...]

    @property
    def snapshot(self) -> Parcel:
        """As it was taken."""
        return Parcel(self.tree, self.tensors, tuple(map(memoryview, self.buffers)), sealed=False)


class StepOn(msgspec.Struct, frozen=True, tag="step"):
    """One step, together with the others."""


class Leave(msgspec.Struct, frozen=True, tag="leave"):
    """Forget the request and the group."""


class Ready(msgspec.Struct, frozen=True, tag="ready"):
    """It is loaded, begun, or left."""

    peak_bytes: int = 0


class Broken(msgspec.Struct, frozen=True, tag="broken"):
    """It went wrong; the process ends."""

    message: str


Order = Load | Begin | StepOn | Leave
Answer = Ready | Broken

orders: Final = msgspec.msgpack.Decoder(Order)
answers: Final = msgspec.msgpack.Decoder(Answer)
_encoder: Final = msgspec.msgpack.Encoder()


def write(stream: IO[bytes], message: Order | Answer) -> None:
    """Raises OSError when nobody reads."""
    data = _encoder.encode(message)
    stream.write(len(data).to_bytes(_LENGTH_BYTES, "little"))
    stream.write(data)
    stream.flush()


def read(stream: IO[bytes], decoder: "msgspec.msgpack.Decoder[Any]") -> Any:
    """The next message. Raises EOFError when the other side is gone or says what it cannot say."""
    size = int.from_bytes(_exactly(stream, _LENGTH_BYTES), "little")
    if size > MAX_FRAME_BYTES:
        msg = f"a frame of {size} bytes"
        raise EOFError(msg)
    try:
        return decoder.decode(_exactly(stream, size))
    except msgspec.DecodeError as err:
        raise EOFError(str(err)) from err


def _exactly(stream: IO[bytes], size: int) -> bytes:
    data = stream.read(size)
    if len(data) < size:
        msg = "the stream ended"
        raise EOFError(msg)
    return data
