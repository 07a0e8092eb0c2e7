"""The head's administration API as functions that return views and raise our errors."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import TYPE_CHECKING, Any, Final, Self

import msgspec

from disagctl.admin_client import admin
from disagctl.errors import DisagctlError, InfeasibleError, UnexpectedError, UnhealthyError, UsageError
from disagctl.state import ServicePaths, paths, read_record
from disagctl.views import CostView, JobView, StatusView

if TYPE_CHECKING:
    import httpx

TIMEOUT_S: Final = 15.0
PREFIX: Final = "/admin/v1"
_ERRORS: Final[dict[int, type[DisagctlError]]] = {429: InfeasibleError, 503: UnhealthyError, 507: InfeasibleError}


class Head(AbstractContextManager["Head"]):
    """One service's head. Raises UsageError when there is no such service, UnhealthyError when it does not answer."""

    def __init__(self, name: str) -> None:
        self.where: ServicePaths = paths(name)
        read_record(self.where)
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        with self._answers():
            self._client = self._stack.enter_context(admin(self.where, TIMEOUT_S))
        return self

    def __exit__(self, *exc: object) -> None:
        self._stack.close()

    def status(self) -> StatusView:
        """Now."""
        return msgspec.json.decode(self._call("GET", "/status"), type=StatusView)

    def watch(self, interval_s: float) -> Iterator[StatusView]:
        """Again and again, until the head goes away."""
        with (
            self._answers(),
            self._client.stream("GET", f"{PREFIX}/status/stream", params={"interval_s": interval_s}) as got,
        ):
            for line in got.iter_lines():
                if line:
                    yield msgspec.json.decode(line, type=StatusView)

    def cost(self) -> CostView:
        """What was spent so far."""
        return msgspec.json.decode(self._call("GET", "/cost"), type=CostView)

    def submit(self, body: dict[str, Any]) -> JobView:
        """Accepted, which means kept."""
        return msgspec.json.decode(self._call("POST", "/requests", json=body), type=JobView)

    def job(self, job_id: str, *, wait_s: float = 0.0, version: int | None = None) -> JobView:
        """A request; with ``wait_s`` once it has changed since ``version``, or is finished, or the time is over."""
        params: dict[str, Any] = {"wait_s": wait_s} if wait_s else {}
        if version is not None:
            params["version"] = version
        answer = self._call("GET", f"/requests/{job_id}", params=params, timeout=TIMEOUT_S + wait_s)
        return msgspec.json.decode(answer, type=JobView)

    def cancel(self, job_id: str) -> JobView:
        """Stop what is not finished."""
        return msgspec.json.decode(self._call("DELETE", f"/requests/{job_id}"), type=JobView)

    @contextmanager
    def content(self, item_id: str) -> Iterator[Iterator[bytes]]:
        """The bytes of a finished item, in pieces."""
        with self._answers(), self._client.stream("GET", f"{PREFIX}/requests/{item_id}/content") as got:
            if got.status_code >= 400:
                got.read()
                raise self._error(got)
            yield got.iter_bytes(1 << 16)

    def scale(self, counts: dict[str, int], *, auto: bool) -> None:
        """Pin worker counts, or hand them back to the policy."""
        self._call("POST", "/scale", json={"counts": counts, "auto": auto})

    def token(self) -> str:
        """A new bearer token."""
        return str(msgspec.json.decode(self._call("POST", "/token"))["token"])

    def _call(self, method: str, path: str, **how: Any) -> bytes:
        with self._answers():
            answer = self._client.request(method, PREFIX + path, **how)
            if answer.status_code >= 400:
                raise self._error(answer)
            return answer.content

    @contextmanager
    def _answers(self) -> Iterator[None]:
        """A head that is not there, or not answering, in our words."""
        import httpx

        name = self.where.name
        try:
            yield
        except httpx.TimeoutException as err:
            raise UnhealthyError(
                f"the head of {name} does not answer", why=str(err), next=f"disagctl logs {name}", code="head_silent"
            ) from err
        except (httpx.TransportError, FileNotFoundError, ConnectionError) as err:
            raise UnhealthyError(
                f"the head of {name} is not running", next="disagctl up SPEC starts it again", code="head_down"
            ) from err
        except msgspec.DecodeError as err:
            raise UnexpectedError(f"the head of {name} gave an answer that makes no sense", why=str(err)) from err

    def _error(self, answer: "httpx.Response") -> DisagctlError:
        """The API's error, with the exit code of its kind."""
        try:
            error = msgspec.json.decode(answer.content)["error"]
            what, code = str(error["message"]), str(error.get("code") or "refused")
        except (msgspec.DecodeError, LookupError, TypeError):
            what, code = f"the head answered {answer.status_code}", "bad_answer"
        cls = _ERRORS.get(answer.status_code, UsageError if answer.status_code < 500 else UnexpectedError)
        seconds = answer.headers.get("retry-after", "")
        again = f"try again in {seconds} s" if seconds.isdigit() else ""
        return cls(what, next=again, code=code)
