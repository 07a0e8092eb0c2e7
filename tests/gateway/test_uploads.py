import io
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from disagctl.gateway.errors import ApiError
from disagctl.gateway.fields import ImageReference
from disagctl.gateway.uploads import from_json, picture

Image = pytest.importorskip("PIL.Image")


def encoded(kind: str, width: int = 70, height: int = 30, **options) -> bytes:
    out = io.BytesIO()
    Image.effect_noise((width, height), 50).convert("RGB").save(out, kind, **options)
    return out.getvalue()


REAL = {
    "png": encoded("PNG"),
    "jpeg": encoded("JPEG"),
    "progressive": encoded("JPEG", progressive=True),
    "exif": encoded("JPEG", exif=b"Exif\0\0" + b"\xff\xc0" * 5000),
    "webp": encoded("WEBP"),
    "lossless": encoded("WEBP", lossless=True),
    "extended": encoded("WEBP", exif=b"Exif\0\0abc"),
}


@pytest.mark.parametrize("name", REAL)
def test_real_pictures(name: str):
    assert picture(REAL[name]) == REAL[name]


def with_size(name: str, width: int, height: int) -> bytes:
    """The picture, its header saying another size."""
    data = bytearray(REAL[name])
    if name == "png":
        data[16:24] = width.to_bytes(4, "big") + height.to_bytes(4, "big")
    elif name == "extended":
        data[24:30] = (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
    elif name == "lossless":
        data[21:25] = ((width - 1) | (height - 1) << 14 | 0).to_bytes(4, "little")
    elif name == "webp":
        data[26:30] = width.to_bytes(2, "little") + height.to_bytes(2, "little")
    else:
        marker = b"\xff\xc2" if name == "progressive" else b"\xff\xc0"
        at = data.rindex(marker) if name == "exif" else data.index(marker)
        data[at + 5 : at + 9] = height.to_bytes(2, "big") + width.to_bytes(2, "big")
    return bytes(data)


@pytest.mark.parametrize("name", REAL)
def test_bombs(name: str):
    side = 8001
    assert picture(with_size(name, 8000, 8000))
    with pytest.raises(ApiError, match="megapixels") as caught:
        picture(with_size(name, side, 8000))
    assert (caught.value.status, caught.value.body.param) == (400, "input_reference")


@pytest.mark.parametrize("name", ["png", "jpeg", "webp"])
def test_no_size_at_all(name: str):
    with pytest.raises(ApiError):
        picture(with_size(name, 0, 0))


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"GIF89a" + bytes(64),
        b"BM" + bytes(64),
        b"<svg xmlns='http://www.w3.org/2000/svg'/>",
        b"%PDF-1.7",
        b"SIMPLE  =                    T",
        b"\x89PNG\r\n\x1a\n",
        b"\xff\xd8\xff",
        b"\xff\xd8" + b"\xff" * (1 << 20),
        b"\xff\xd8\xff\xe0\0\0" * (1 << 18),
        b"\xff\xd8\xff\xda" + bytes(64),
        b"RIFF\0\0\0\0WEBPVP8 ",
        b"RIFF\0\0\0\0WEBPABCD" + bytes(64),
        b"RIFF\0\0\0\0WAVE" + bytes(64),
    ],
)
def test_other_things(data: bytes):
    with pytest.raises(ApiError):
        picture(data)


@given(st.sampled_from(sorted(REAL)), st.integers(0, 200), st.binary(max_size=12))
def test_damage_never_crashes(name: str, at: int, damage: bytes):
    data = bytearray(REAL[name])
    data[at : at + len(damage)] = damage
    for piece in (bytes(data), bytes(data[:at])):
        with suppress(ApiError):
            picture(piece)


@given(st.text(max_size=80))
def test_references_never_crash(text: str):
    for value in (text, "data:image/png;base64," + text, ImageReference(text)):
        with pytest.raises(ApiError):
            from_json(value)
