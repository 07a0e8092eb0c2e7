"""Models, health, metrics, version: what is neither a picture nor a video."""

from starlette.requests import Request
from starlette.responses import Response

from disagctl import __version__
from disagctl.gateway.answers import Health, Model, ModelList, Version, json_response
from disagctl.gateway.checks import choose_model
from disagctl.gateway.context import Context
from disagctl.service import ModelInfo


class Meta:
    """Handlers of the rest."""

    def __init__(self, ctx: Context) -> None:
        self.ctx = ctx

    async def models(self, request: Request) -> Response:
        """``GET /v1/models``."""
        return json_response(ModelList([_model(info) for info in self.ctx.service.models()]))

    async def model(self, request: Request) -> Response:
        """``GET /v1/models/{name}``; hub ids have a slash in them."""
        return json_response(_model(choose_model(self.ctx.service.models(), request.path_params["name"])))

    async def livez(self, request: Request) -> Response:
        """The process answers. No more is claimed."""
        return json_response(Health("ok"))

    async def readyz(self, request: Request) -> Response:
        """Whether a request sent now would be worked on: 503 and why not."""
        ready, reason = self.ctx.service.readiness()
        return json_response(Health("ok" if ready else "unavailable", ready, reason or None), 200 if ready else 503)

    async def health(self, request: Request) -> Response:
        """Both at once; 200 as long as the process answers."""
        ready, reason = self.ctx.service.readiness()
        return json_response(Health("ok", ready, reason or None))

    async def metrics(self, request: Request) -> Response:
        """``GET /metrics`` for Prometheus."""
        return Response(self.ctx.service.metrics(), media_type="text/plain; version=0.0.4")

    async def version(self, request: Request) -> Response:
        """``GET /version``."""
        return json_response(Version(self.ctx.service.name, __version__))


def _model(info: ModelInfo) -> Model:
    return Model(info.name, int(info.created_at), info.id, info.card.modality, info.card.workflow)
