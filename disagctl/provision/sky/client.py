"""SkyPilot's client, and the only module that talks to it. Every call blocks: a thread's work, never the loop's.

Its API server is this user's own, on the loopback interface; the client unpickles what it answers, so no other is accepted.
"""

import contextlib
import functools
import io
import logging
import re
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any, Final, Literal, ParamSpec, TypeVar

import msgspec

from disagctl.errors import CredentialsError, UsageError
from disagctl.provision.sky.tasks import offer_of
from disagctl.settings import prepare_sky
from planner.domain import Offer

log = logging.getLogger(__name__)

RequestState = Literal["running", "succeeded", "failed"]
_STATES: Final[dict[str, RequestState]] = {
    "PENDING": "running", "RUNNING": "running", "WAITING": "running", "SUCCEEDED": "succeeded",
}  # fmt: skip
_COLOUR: Final = re.compile(r"\x1b\[[0-9;]*m")
_SPEAKER: Final = re.compile(r"^\((?:[\w-]+,? )*pid=\d+\) ?", re.MULTILINE)


P = ParamSpec("P")
T = TypeVar("T")

TRIES: Final = 4
PAUSE_S: Final = 1.0


class Launch(msgspec.Struct, frozen=True):
    """A launch that the API server was asked for."""

    request_id: str
    cluster: str
    state: RequestState


class Cluster(msgspec.Struct, frozen=True):
    """A cluster of one node that SkyPilot knows."""

    name: str
    status: str  # INIT | UP | STOPPED …
    ever_up: bool
    offer: Offer | None


def _patient(call: Callable[P, T]) -> Callable[P, T]:
    """For what may be asked twice: a busy machine's API server does not always answer within the seconds it is given."""

    @functools.wraps(call)
    def asked(*args: P.args, **kwargs: P.kwargs) -> T:
        for left in reversed(range(TRIES)):
            try:
                return call(*args, **kwargs)
            except (OSError, RuntimeError) as err:
                silent = isinstance(err, OSError) or type(err).__name__ == "ApiServerConnectionError"
                if not silent or left == 0:
                    raise
                log.info("SkyPilot's API server does not answer: %s", err)
                time.sleep(PAUSE_S)
        raise AssertionError

    return asked


@functools.cache
def library() -> Any:
    """The package: seconds to import, so as late as can be."""
    prepare_sky()
    try:
        import sky
        from sky.server import common
    except ImportError as err:
        raise UsageError(
            "SkyPilot is not installed",
            why=str(err),
            next="pip install 'disagctl[sky]', and 'skypilot[aws]' or what you use",
        ) from err
    if not common.is_api_server_local():
        raise CredentialsError(
            f"SkyPilot is set to use the API server at {common.get_server_url()}",
            why="its client runs what that server answers, so disagctl uses one on this machine only",
            next="unset SKYPILOT_API_SERVER_ENDPOINT and api_server.endpoint",
        )
    speaker = logging.getLogger("sky")
    speaker.setLevel(logging.WARNING)
    for handler in speaker.handlers:
        if isinstance(handler, logging.StreamHandler) and handler.stream is sys.stdout:
            handler.setStream(sys.stderr)  # standard output is for data
    return sky


@_patient
def start() -> None:
    """See that its API server runs: the first time that takes long."""
    library()
    from sky.server import common

    common.check_server_healthy_or_start_fn()


def launch(task: dict[str, Any], cluster: str) -> str:
    """Ask for a cluster that runs this task; returns the request's id."""
    sky = library()
    start()  # patiently; the launch itself is asked for once
    with contextlib.redirect_stdout(sys.stderr):  # it says there what it does, and standard output is for data
        return str(sky.launch(sky.Task.from_yaml_config(task), cluster_name=cluster))


@_patient
def launches(cluster: str | None = None) -> list[Launch]:
    """Launches of this cluster, oldest first; without a name, those under way of all clusters."""
    sky = library()
    start()  # api_status takes a server that does not run for one without requests
    found = sky.api_status(all_status=cluster is not None, cluster_name=cluster)
    return [
        Launch(one.request_id, one.cluster_name or "", _STATES.get(one.status, "failed"))
        for one in sorted(found, key=lambda one: float(one.created_at))
        if one.name == "sky.launch" and cluster in (None, one.cluster_name)
    ]


def outcome(request_id: str) -> BaseException | None:
    """What became of a launch that is over: None when it succeeded."""
    try:
        library().get(request_id)
    except Exception as err:  # noqa: BLE001  # whatever the server raised is raised here: that is the answer
        return err
    return None


@_patient
def clusters(names: Sequence[str] | None, *, ask_providers: bool) -> list[Cluster]:
    """Those of these names (None: all) that there are; with what their providers say of them now, or as last seen."""
    sky = library()
    if names is not None and not names:
        return []
    mode = sky.StatusRefreshMode.FORCE if ask_providers else sky.StatusRefreshMode.NONE
    return [_cluster(record) for record in sky.get(sky.status(list(names) if names else None, refresh=mode))]


def job(cluster: str) -> str | None:
    """Status of the cluster's last job, in SkyPilot's words; None when it has none or cannot be asked."""
    sky = library()
    try:
        found: dict[Any, Any] = sky.get(sky.job_status(cluster))
    except Exception as err:  # noqa: BLE001  # a node that is starting or going away answers in many ways
        log.debug("%s: no job status: %s", cluster, err)
        return None
    status = next(iter(found.values()), None)
    return None if status is None else str(status.value)


@_patient
def cancel(request_id: str) -> None:
    """Abort a request; harmless when it is over."""
    sky = library()
    sky.get(sky.api_cancel([request_id], silent=True))


@_patient
def down(cluster: str) -> None:
    """End a cluster; harmless when there is none."""
    sky = library()
    try:
        sky.get(sky.down(cluster))
    except sky.exceptions.ClusterDoesNotExist:
        return


def job_log(cluster: str, lines: int) -> tuple[str, ...]:
    """The last lines of the cluster's last job, its set-up included."""
    out = io.StringIO()
    library().tail_logs(cluster, None, follow=False, tail=lines, output_stream=out)
    return _lines(out, lines)


def launch_log(request_id: str, lines: int) -> tuple[str, ...]:
    """The last lines of what a launch said."""
    out = io.StringIO()
    try:
        library().stream_and_get(request_id, tail=lines, follow=False, output_stream=out)
    except Exception as err:  # noqa: BLE001  # it raises what the launch raised; the lines are what is asked for
        log.debug("%s: %s", request_id, err)
    return _lines(out, lines)


def _lines(out: io.StringIO, count: int) -> tuple[str, ...]:
    text = _SPEAKER.sub("", _COLOUR.sub("", out.getvalue()))
    return tuple(line.rstrip() for line in text.splitlines() if line.strip())[-count:]


def _cluster(record: Any) -> Cluster:
    handle = record["handle"]
    resources = getattr(handle, "launched_resources", None)
    offer = offer_of(resources) if resources is not None and resources.is_launchable() else None
    return Cluster(str(record["name"]), str(record["status"].value), bool(record["cluster_ever_up"]), offer)
