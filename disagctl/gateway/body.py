"""Reading a request's body and turning it into a struct, within limits."""

import asyncio
import re
from collections.abc import AsyncGenerator, Callable
from typing import Any, Final, TypeVar

import msgspec
from starlette.datastructures import Headers, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import ClientDisconnect, Request

from disagctl.gateway.context import Held
from disagctl.gateway.errors import ApiError, invalid
from disagctl.gateway.limits import Limits

T = TypeVar("T")
_UNKNOWN: Final = re.compile(r"unknown field `(?P<field>.*?)`(?: - at `\$\.(?P<parent>[A-Za-z_]+)`)?$", re.DOTALL)
_MISSING: Final = re.compile(r"missing required field `(?P<field>[^`]+)`(?: - at `\$\.(?P<parent>[A-Za-z_]+))?")
_AT: Final = re.compile(r" - at `\$\.(?P<field>[A-Za-z0-9_]+)[^`]*`$")
_MAX_FORM_FIELDS: Final = 64
_MAX_COMPLAINT: Final = 500
_SLICE: Final = 64 << 10


async def read_body(request: Request, limits: Limits, held: Held) -> bytes:
    """The whole body. Raises ApiError: 413 too large, 408 too slow, 503 when others hold too much."""
    declared = request.headers.get("content-length", "0")
    if not declared.isdecimal() or int(declared[:20]) > limits.max_body:
        raise _too_large(limits)
    chunks: list[bytes] = []
    size = 0
    try:
        async with asyncio.timeout(limits.body_s):
            while True:
                event = await request.receive()
                if event["type"] == "http.disconnect":
                    raise ClientDisconnect
                chunk: bytes = event.get("body", b"")
                size += len(chunk)
                if size > limits.max_body:
                    raise _too_large(limits)
                held.add(len(chunk))
                chunks.append(chunk)
                if not event.get("more_body", False):
                    return b"".join(chunks) if len(chunks) > 1 else chunk
    except TimeoutError:
        message = f"the body did not arrive within {limits.body_s:g} s"
        raise ApiError(408, message, code="timeout", headers={"connection": "close"}) from None


def content_type(request: Request) -> str:
    """The media type alone, in lower case; empty when there is none."""
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


def decode_json(request: Request, data: bytes, decoder: msgspec.json.Decoder[T]) -> T:
    """The body as a struct. Raises ApiError naming the field at fault."""
    kind = content_type(request)
    if kind not in {"", "application/json"}:
        raise ApiError(415, f"send application/json, not {kind[:100]}", code="unsupported_media_type")
    return checked(decoder.decode, data)


def checked(decode: Callable[[Any], T], data: object) -> T:
    """Call ``decode`` and turn msgspec's complaints into ApiErrors."""
    try:
        return decode(data)
    except msgspec.ValidationError as err:
        raise _explain(str(err)) from None
    except RecursionError:
        raise invalid(None, "the body is nested too deeply", code="invalid_json") from None
    except ValueError as err:  # malformed JSON or UTF-8; the text says at which byte, and quotes nothing
        raise invalid(None, f"the body is not JSON: {err}"[:200], code="invalid_json") from None


async def read_form(headers: Headers, data: bytes) -> dict[str, str | bytes]:
    """The parts of a multipart body; files as bytes. Raises ApiError."""
    parser = _Form(headers, _slices(data), max_files=1, max_fields=_MAX_FORM_FIELDS, max_part_size=len(data) + 1)
    try:
        form = await parser.parse()
    except MultiPartException as err:
        raise invalid(None, err.message[:200], code="invalid_form") from None
    parts: dict[str, str | bytes] = {}
    for name, value in form.multi_items():
        if name in parts:
            raise invalid(name[:100], "given more than once", code="duplicate_parameter")
        parts[name] = value if isinstance(value, str) else await _content(value)
    return parts


class _Form(MultiPartParser):
    """Keeps files in memory: the body is there already, and its size is bounded."""

    spool_max_size = 1 << 30


async def _content(file: UploadFile) -> bytes:
    try:
        return await file.read()
    finally:
        await file.close()


async def _slices(data: bytes) -> AsyncGenerator[bytes, None]:
    """In pieces, letting others run in between: the parser is Python and a hostile body makes it slow."""
    for start in range(0, len(data), _SLICE):
        yield data[start : start + _SLICE]
        await asyncio.sleep(0)
    yield b""


def _explain(text: str) -> ApiError:
    """msgspec's message, with the field in front."""
    if len(text) > _MAX_COMPLAINT:  # it quotes a name, which may be megabytes long
        text = text[:_MAX_COMPLAINT] + "`"
    if match := _UNKNOWN.search(text):
        name = match["field"][:100]
        return invalid(match["parent"] or name, f"there is no field {name!r}", code="unknown_parameter")
    if match := _MISSING.search(text):
        name = match["field"]
        return invalid(match["parent"] or name, f"{name} is required", code="missing_required_parameter")
    at = _AT.search(text)
    text = _AT.sub("", text).replace(" | null", "").replace("`", "")
    reason = text[:1].lower() + text[1:200]
    return invalid(at["field"] if at else None, reason if at else f"the body must be a JSON object: {reason}")


def _too_large(limits: Limits) -> ApiError:
    return ApiError(413, f"the body is larger than {limits.max_body >> 20} MiB", code="body_too_large")
