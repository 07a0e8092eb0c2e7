"""The public HTTP API, shaped like OpenAI's."""

from typing import Final, NamedTuple

import msgspec
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from disagctl.gateway.auth import Handler, guard
from disagctl.gateway.boundary import Boundary
from disagctl.gateway.context import Context
from disagctl.gateway.errors import JSON, ApiError, on_api_error, on_http_exception
from disagctl.gateway.images import Images
from disagctl.gateway.limits import Limits
from disagctl.gateway.meta import Meta
from disagctl.gateway.openapi import document
from disagctl.gateway.videos import Videos
from disagctl.service import Service

DEFAULT_LIMITS: Final = Limits()


class Endpoint(NamedTuple):
    """One method of one path. ``open``: needs no token."""

    method: str
    path: str
    handler: Handler
    open: bool = False


def endpoints(ctx: Context) -> list[Endpoint]:
    """All of the public API; what is asked for most comes first."""
    images, videos, meta = Images(ctx), Videos(ctx), Meta(ctx)
    return [
        Endpoint("POST", "/v1/images/generations", images.generate),
        Endpoint("GET", "/v1/videos/{id}", videos.get),
        Endpoint("GET", "/v1/videos/{id}/content", videos.content),
        Endpoint("POST", "/v1/videos", videos.create),
        Endpoint("GET", "/v1/images/{id}/content", images.content),
        Endpoint("GET", "/v1/videos", videos.list),
        Endpoint("DELETE", "/v1/videos/{id}", videos.delete),
        Endpoint("GET", "/v1/models", meta.models),
        Endpoint("GET", "/v1/models/{name:path}", meta.model),
        Endpoint("GET", "/livez", meta.livez, open=True),
        Endpoint("GET", "/readyz", meta.readyz, open=True),
        Endpoint("GET", "/health", meta.health, open=True),
        Endpoint("GET", "/metrics", meta.metrics),
        Endpoint("GET", "/version", meta.version),
        Endpoint("GET", "/openapi.json", _openapi),
    ]


def public_app(service: Service, *, limits: Limits = DEFAULT_LIMITS) -> Starlette:
    """The app that faces clients."""
    all_of_it = endpoints(Context(service, limits))
    routes = [
        Route(path, handler if is_open else guard(service, handler), methods=[method])
        for method, path, handler, is_open in all_of_it
    ]
    return build(routes)


def build(routes: list[Route]) -> Starlette:
    """An app with our errors and our boundary."""
    app = Starlette(
        routes=routes,
        middleware=[Middleware(Boundary)],
        exception_handlers={ApiError: on_api_error, HTTPException: on_http_exception},
    )
    app.router.redirect_slashes = False  # an API has one name for a thing
    return app


async def _openapi(request: Request) -> Response:
    """``GET /openapi.json``."""
    return Response(msgspec.json.encode(document()), media_type=JSON)
