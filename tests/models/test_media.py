from io import BytesIO

import av
import numpy as np
import pytest
from PIL import Image

from stages.models import media
from stages.models.base import RequestError


def noise(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


def test_png_is_lossless_and_reproducible() -> None:
    pixels = noise(31, 17, 3)
    file = media.encode_image(pixels)
    assert file.mime == "image/png"
    assert file == media.encode_image(pixels, "png")
    assert np.array_equal(np.asarray(Image.open(BytesIO(file.data))), pixels)


@pytest.mark.parametrize("name", ["jpeg", "webp"])
def test_lossy_pictures_are_near_and_reproducible(name: str) -> None:
    smooth = np.tile(np.linspace(0, 255, 64, dtype=np.uint8)[:, None, None], (1, 64, 3))
    file = media.encode_image(smooth, name)
    assert file.mime == f"image/{name}"
    assert file == media.encode_image(smooth, name)
    back = np.asarray(Image.open(BytesIO(file.data)).convert("RGB")).astype(int)
    assert np.abs(back - smooth).mean() < 3


@pytest.mark.parametrize(("height", "width"), [(32, 48), (33, 31)])
def test_mp4(height: int, width: int) -> None:
    frames = np.stack([np.full((height, width, 3), (40 * i, 200, 30), dtype=np.uint8) for i in range(5)])
    file = media.encode_video(frames, fps=8)
    assert file == media.encode_video(frames, fps=8)
    assert file.data.find(b"moov") < file.data.find(b"mdat")
    with av.open(BytesIO(file.data)) as video:
        stream = video.streams.video[0]
        assert (stream.codec_context.name, stream.pix_fmt, stream.average_rate) == ("h264", "yuv420p", 8)
        assert (stream.height, stream.width) == (height + height % 2, width + width % 2)
        back = [frame.to_ndarray(format="rgb24") for frame in video.decode(video=0)]
    assert len(back) == 5
    assert np.abs(back[2][: height - 1, : width - 1].astype(int) - frames[2, : height - 1, : width - 1]).max() < 6


@pytest.mark.parametrize("side", [32, 96])
def test_mp4_bytes_do_not_depend_on_the_heap(side: int) -> None:
    """x264's macroblock tree reads what earlier allocations left behind; smooth pictures show it."""
    ramp = np.linspace(60, 210, side, dtype=np.float32)
    waves = [ramp[:, None, None] + 20 * np.sin(ramp[None, :, None] / 9 + i + np.arange(3)) for i in range(9)]
    frames = np.stack(waves).astype(np.uint8)
    random = np.random.default_rng(1)
    files = set()
    for _ in range(25):
        garbage = [random.bytes(int(n)) for n in random.integers(16, 200_000, 60)]
        del garbage
        files.add(media.encode_video(frames, 8).data)
    assert len(files) == 1


def test_fractional_and_default_rates() -> None:
    with av.open(BytesIO(media.encode_video(noise(2, 16, 16, 3), 23.976).data)) as video:
        assert float(video.streams.video[0].average_rate) == pytest.approx(23.976, abs=0.01)
    with av.open(BytesIO(media.encode_video(noise(1, 16, 16, 3)).data)) as video:
        assert video.streams.video[0].average_rate == media.DEFAULT_FPS


def test_floats_are_rounded_to_the_nearest() -> None:
    assert media.to_uint8(np.array([0.0, 0.5, 1.0, 1.7, -1.0, 254.6 / 255])).tolist() == [0, 128, 255, 255, 0, 255]
    assert media.to_uint8(noise(2)).dtype == np.uint8


def test_unknown_formats() -> None:
    with pytest.raises(RequestError) as caught:
        media.encode_image(noise(4, 4, 3), "bmp")
    assert caught.value.param == "output_format"
    with pytest.raises(RequestError):
        media.encode_video(noise(1, 4, 4, 3), 8, "png")
    with pytest.raises(ValueError, match="height × width"):
        media.encode_image(noise(4, 4))
