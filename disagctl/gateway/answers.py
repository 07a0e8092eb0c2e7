"""The documents that the public API answers with, and how they are sent."""

from typing import Any, Literal

import msgspec
from starlette.responses import FileResponse, Response

from disagctl.gateway.errors import JSON, ApiError
from disagctl.service import Content

_ENCODER = msgspec.json.Encoder()
_EXTENSIONS = {"image/png": "png", "image/jpeg": "jpeg", "image/webp": "webp", "video/mp4": "mp4"}


class ImageItem(msgspec.Struct, omit_defaults=True):
    """One picture: its bytes or where to get them, and the seed that makes it again."""

    seed: int
    b64_json: bytes | None = None  # msgspec writes bytes as base64
    url: str | None = None


class ImagesAnswer(msgspec.Struct):
    """Answer of ``POST /v1/images/generations``."""

    created: int
    id: str
    model: str
    data: list[ImageItem]
    output_format: str
    size: str | None = None


class VideoError(msgspec.Struct):
    """Why a video failed. code ``cancelled``: somebody cancelled it."""

    code: str
    message: str


class Video(msgspec.Struct, kw_only=True):
    """A video and how far it is."""

    id: str
    model: str
    status: Literal["queued", "in_progress", "completed", "failed"]
    progress: int
    prompt: str
    seconds: str
    size: str
    created_at: int
    seed: int
    num_frames: int | None = None
    fps: int | None = None
    completed_at: int | None = None
    expires_at: int | None = None
    error: VideoError | None = None
    object: Literal["video"] = "video"


class VideoList(msgspec.Struct):
    """A page of videos. ``last_id`` is the next page's ``after``."""

    data: list[Video]
    first_id: str | None
    last_id: str | None
    has_more: bool
    object: Literal["list"] = "list"


class VideoDeleted(msgspec.Struct):
    """Answer of ``DELETE /v1/videos/{id}``."""

    id: str
    object: Literal["video.deleted"] = "video.deleted"
    deleted: bool = True


class Model(msgspec.Struct):
    """A model of this service. ``hub_id`` is accepted as its name as well."""

    id: str
    created: int
    hub_id: str
    modality: str
    workflow: str
    object: Literal["model"] = "model"
    owned_by: str = "disagctl"


class ModelList(msgspec.Struct):
    """All models."""

    data: list[Model]
    object: Literal["list"] = "list"


class Health(msgspec.Struct):
    """Alive or not, ready or not, and why not."""

    status: str
    ready: bool | None = None
    reason: str | None = None


class Version(msgspec.Struct):
    """What is running."""

    name: str
    version: str


def json_response(value: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    """``value`` as JSON."""
    return Response(_ENCODER.encode(value), status, headers=headers, media_type=JSON)


def expired(item_id: str) -> ApiError:
    """410: it was there once."""
    return ApiError(410, f"{item_id} has been deleted", code="expired")


def content_response(content: Content | None, item_id: str, kind: Literal["image", "video", ""]) -> Response:
    """The file itself; ranges are served from disk. Raises ApiError (404) when there is none of that kind."""
    if content is None or not content.mime.startswith(kind):
        raise ApiError(404, f"there is no finished {kind or 'file'} {item_id!r}", code="not_found")
    name = f"{item_id}.{_EXTENSIONS.get(content.mime, 'bin')}"
    headers = {"content-disposition": f'inline; filename="{name}"'}
    if content.path is not None:
        try:
            stat = content.path.stat()
        except FileNotFoundError:  # deleted since
            raise expired(item_id) from None
        return FileResponse(content.path, headers=headers, media_type=content.mime, stat_result=stat)
    return Response(content.data or b"", headers=headers, media_type=content.mime)
