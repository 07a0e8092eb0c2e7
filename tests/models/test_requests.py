"""What a stage refuses before it computes, and how it says so."""

from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from stages.models.base import File, ModelCard, RequestError
from stages.models.checks import check, decode_image, input_image
from stages.parcel import ParcelError, pack
from tests.models.kit import finish, load, picture, run_until, upload

VIDEO_CARD = ModelCard(("encode", "denoise", "decode"), "video", "text2video", size_multiple=16, frames_multiple=4)
IMAGE_CARD = ModelCard(("encode", "denoise", "decode"), "image", "text2image", size_multiple=16)
I2V_CARD = ModelCard(("encode", "denoise", "decode"), "video", "image2video", needs_image=True)


@pytest.mark.parametrize(
    ("params", "param"),
    [
        ({"width": 100}, "width"),
        ({"height": 0}, "height"),
        ({"width": -16}, "width"),
        ({"num_frames": 8}, "num_frames"),
        ({"num_frames": 0}, "num_frames"),
        ({"num_inference_steps": 0}, "num_inference_steps"),
        ({"num_inference_steps": 1001}, "num_inference_steps"),
        ({"max_sequence_length": 100_000}, "max_sequence_length"),
        ({"output_format": "gif"}, "output_format"),
        ({"output_format": "png"}, "output_format"),
    ],
)
def test_what_a_model_cannot_do(params: dict[str, Any], param: str) -> None:
    with pytest.raises(RequestError) as caught:
        check(params, VIDEO_CARD)
    assert caught.value.param == param


def test_what_it_can_do() -> None:
    check({"width": 832, "height": 480, "num_frames": 81, "output_format": "mp4"}, VIDEO_CARD)
    check({"width": 64, "height": 64, "num_frames": None, "output_format": "webp"}, IMAGE_CARD)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
def test_pictures_are_read_and_fitted(kind: str) -> None:
    image = input_image(upload(picture(40, 30, kind)), I2V_CARD, {"width": 16, "height": 32})
    assert image is not None
    assert (image.size, image.mode) == ((16, 32), "RGB")


def test_a_picture_of_the_right_size_is_left_alone() -> None:
    data = picture(16, 32)
    image = input_image(upload(data), I2V_CARD, {"width": 16, "height": 32})
    assert image is not None
    assert image.tobytes() == Image.open(BytesIO(data)).tobytes()


def test_exif_rotation_is_honoured() -> None:
    out = BytesIO()
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (8, 4)).save(out, "JPEG", exif=exif)
    assert decode_image(out.getvalue()).size == (4, 8)


def gif() -> bytes:
    out = BytesIO()
    Image.new("RGB", (4, 4)).save(out, "GIF")
    return out.getvalue()


def bomb() -> bytes:
    out = BytesIO()
    Image.new("1", (9000, 9000)).save(out, "PNG")
    return out.getvalue()


@pytest.mark.parametrize(
    "data", [b"", b"not a picture", gif(), bomb(), picture(32, 32)[:200], picture(32, 32, "JPEG")[:300]]
)
def test_bad_pictures_are_the_requests_fault(data: bytes) -> None:
    with pytest.raises(RequestError) as caught:
        decode_image(data)
    assert caught.value.param == "input_reference"


def test_a_missing_picture() -> None:
    for nothing in (None, pack({}), pack({"input_reference": "x"})):
        with pytest.raises(RequestError) as caught:
            input_image(nothing, I2V_CARD, {})
        assert caught.value.param == "input_reference"


def test_stages_check_before_they_compute(tiny_model: Callable[[str], Path]) -> None:
    model = load(tiny_model("flux"), "encode")
    with pytest.raises(RequestError, match="multiple of 16"):
        model.start({"prompt": "x", "width": 40}, None)
    with pytest.raises(RequestError, match="prompt"):  # what the pipeline itself refuses
        finish(model.start({"prompt": 7}, None))


def test_a_later_stage_refuses_what_no_stage_made(tiny_model: Callable[[str], Path]) -> None:
    for stage in ("denoise", "decode"):
        with pytest.raises(ParcelError):
            load(tiny_model("flux"), stage).start({"prompt": "x"}, pack({"prompt_embeds": "nonsense"}))
    with pytest.raises(ParcelError):
        load(tiny_model("flux"), "denoise").resume({"prompt": "x"}, pack({"steps_done": 2}))


def test_output_formats(tiny_model: Callable[[str], Path]) -> None:
    folder = tiny_model("flux")
    params = {"prompt": "x", "width": 32, "height": 32, "num_inference_steps": 1, "seed": 1, "max_sequence_length": 16}
    arrived = run_until(folder, "decode", params)
    model = load(folder, "decode")
    for name in ("png", "jpeg", "webp"):
        file = finish(model.start(params | {"output_format": name}, arrived))
        assert isinstance(file, File)
        assert file.mime == f"image/{name}"
        assert Image.open(BytesIO(file.data)).size == (32, 32)
