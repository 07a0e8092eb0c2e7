"""``/openapi.json``: the structs that decode requests and encode answers, described by themselves."""

from functools import cache
from typing import Any, Final, NamedTuple

import msgspec

from disagctl import __version__
from disagctl.gateway.answers import Health, ImagesAnswer, Model, ModelList, Version, Video, VideoDeleted, VideoList
from disagctl.gateway.errors import JSON, ErrorAnswer
from disagctl.gateway.fields import ImageBody, VideoBody

_REF: Final = "#/components/schemas/{name}"
_FORM: Final = "multipart/form-data"
_IMAGE: Final = ("image/png", "image/jpeg", "image/webp")
_TEXT: Final = ("text/plain",)
_JOB_HEADERS: Final = (
    ("Idempotency-Key", "The same key and body give the same job; another body gives 409.", {"maxLength": 255}),
    ("X-Deadline-Ms", "Give up so many milliseconds after acceptance.", {"pattern": "^[0-9]+$"}),
)
_PAGING: Final[tuple[tuple[str, dict[str, Any]], ...]] = (
    ("after", {"type": "string"}),
    ("limit", {"type": "integer", "minimum": 1, "maximum": 100, "default": 20}),
    ("order", {"enum": ["asc", "desc"], "default": "desc"}),
)


class Operation(NamedTuple):
    """One method of one path. ``answer``: a struct, or the media types of a file."""

    method: str
    path: str
    summary: str
    answer: type[msgspec.Struct] | tuple[str, ...] | None
    body: type[msgspec.Struct] | None = None
    errors: tuple[int, ...] = (401,)
    query: tuple[tuple[str, dict[str, Any]], ...] = ()


_SUBMIT: Final = (400, 401, 403, 404, 408, 409, 413, 415, 429, 503, 507)
_GENERATE: Final = (*_SUBMIT, 410, 500, 504)
_LOOK: Final = (401, 404)
OPERATIONS: Final = (
    Operation("post", "/v1/images/generations", "Make pictures, wait for them", ImagesAnswer, ImageBody, _GENERATE),
    Operation("get", "/v1/images/{id}/content", "Fetch a picture", _IMAGE, errors=_LOOK),
    Operation("post", "/v1/videos", "Ask for a video", Video, VideoBody, _SUBMIT),
    Operation("get", "/v1/videos", "List videos", VideoList, errors=(400, 401), query=_PAGING),
    Operation("get", "/v1/videos/{id}", "Look at a video's progress", Video, errors=_LOOK),
    Operation("delete", "/v1/videos/{id}", "Cancel and forget a video", VideoDeleted, errors=_LOOK),
    Operation("get", "/v1/videos/{id}/content", "Fetch a finished video", ("video/mp4",), errors=_LOOK),
    Operation("get", "/v1/models", "List models", ModelList),
    Operation("get", "/v1/models/{name}", "Look at a model", Model, errors=_LOOK),
    Operation("get", "/livez", "The process answers", Health, errors=()),
    Operation("get", "/readyz", "A request sent now would be worked on", Health, errors=(503,)),
    Operation("get", "/health", "Alive, and ready or why not", Health, errors=()),
    Operation("get", "/metrics", "Prometheus metrics", _TEXT),
    Operation("get", "/version", "What is running", Version),
    Operation("get", "/openapi.json", "This document", None),
)


@cache
def document() -> dict[str, Any]:
    """The OpenAPI 3.1 document."""
    named = [ErrorAnswer, *(t for op in OPERATIONS for t in (op.answer, op.body) if isinstance(t, type))]
    _, schemas = msgspec.json.schema_components(list(dict.fromkeys(named)), ref_template=_REF)
    paths: dict[str, dict[str, Any]] = {}
    for op in OPERATIONS:
        paths.setdefault(op.path, {})[op.method] = _operation(op)
    return {
        "openapi": "3.1.0",
        "info": {"title": "disagctl", "version": __version__, "description": "OpenAI's images and videos APIs"},
        "security": [{"bearer": []}],
        "paths": paths,
        "components": {"schemas": schemas, "securitySchemes": {"bearer": {"type": "http", "scheme": "bearer"}}},
    }


def _operation(op: Operation) -> dict[str, Any]:
    answers = {"200": {"description": "OK", "content": _content(op.answer)}}
    answers |= {str(status): _error(status, op) for status in sorted(op.errors)}
    found: dict[str, Any] = {"summary": op.summary, "responses": answers}
    if 401 not in op.errors:
        found["security"] = []
    if parameters := _parameters(op):
        found["parameters"] = parameters
    if op.body is not None:
        found["requestBody"] = {"required": True, "content": _content(op.body)}
        if op.body is VideoBody:
            found["requestBody"]["content"][_FORM] = {"schema": _form()}
    return found


def _parameters(op: Operation) -> list[dict[str, Any]]:
    out = [
        {"name": part[1:-1], "in": "path", "required": True, "schema": {"type": "string"}}
        for part in op.path.split("/")
        if part.startswith("{")
    ]
    out += [{"name": name, "in": "query", "schema": schema} for name, schema in op.query]
    if op.body is not None:
        for name, text, schema in _JOB_HEADERS:
            out.append({"name": name, "in": "header", "description": text, "schema": {"type": "string"} | schema})
    return out


def _content(answer: type[msgspec.Struct] | tuple[str, ...] | None) -> dict[str, Any]:
    if answer is None:
        return {JSON: {"schema": {"type": "object"}}}
    if isinstance(answer, tuple):
        return {media: {"schema": {"type": "string"}} for media in answer}
    return {JSON: {"schema": _ref(answer)}}


def _ref(struct: type[msgspec.Struct]) -> dict[str, str]:
    return {"$ref": _REF.format(name=struct.__name__)}


def _error(status: int, op: Operation) -> dict[str, Any]:
    is_health = status == 503 and op.answer is Health
    schema = _ref(Health if is_health else ErrorAnswer)
    return {"description": "Not ready" if is_health else "Refused", "content": {JSON: {"schema": schema}}}


def _form() -> dict[str, Any]:
    """The form takes the same fields, and the picture as a file."""
    picture = {"input_reference": {"type": "string", "format": "binary"}}
    return {"allOf": [_ref(VideoBody), {"type": "object", "properties": picture}]}
