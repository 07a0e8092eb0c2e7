"""A cloud's word that it takes this machine back: its metadata service is asked every few seconds on spot machines.

AWS tells two minutes ahead (https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/spot-instance-termination-notices.html), Google
half a minute (https://cloud.google.com/compute/docs/instances/spot), Azure likewise
(https://learn.microsoft.com/azure/virtual-machines/linux/scheduled-events). Elsewhere nobody answers, and the asking ends.
"""

import http.client
import logging
import threading
from collections.abc import Callable, Mapping
from typing import Any, Final

import msgspec

log = logging.getLogger("stages.notices")

METADATA: Final = "169.254.169.254"
EVERY_S: Final = 5.0
FIND_TRIES: Final = 6  # the service may come up after the machine
TIMEOUT_S: Final = 2.0
MOST_BYTES: Final = 64 * 1024
TOKEN_S: Final = 21_600

Ask = Callable[
    [str, str, Mapping[str, str]], "tuple[int, str] | None"
]  # method, path, headers: status and text; None: no answer


def ask_at(host: str = METADATA, port: int = 80) -> Ask:
    """One HTTP request at a time, past any proxy."""

    def ask(method: str, path: str, headers: Mapping[str, str]) -> tuple[int, str] | None:
        connection = http.client.HTTPConnection(host, port, timeout=TIMEOUT_S)
        try:
            connection.request(method, path, headers=dict(headers))
            answer = connection.getresponse()
            return answer.status, answer.read(MOST_BYTES).decode("utf-8", "replace")
        except (OSError, http.client.HTTPException):
            return None
        finally:
            connection.close()

    return ask


class Aws:
    """IMDSv2: a session token first, for version 1 may be off."""

    def __init__(self, ask: Ask) -> None:
        self._ask, self._token = ask, ""

    def found(self) -> bool:
        """Whether this is the cloud."""
        answer = self._ask("PUT", "/latest/api/token", {"X-aws-ec2-metadata-token-ttl-seconds": str(TOKEN_S)})
        self._token = answer[1] if answer is not None and answer[0] == 200 else ""
        return bool(self._token)

    def notice(self) -> str:
        """Why the machine goes; empty while it stays."""
        answer = self._ask("GET", "/latest/meta-data/spot/instance-action", {"X-aws-ec2-metadata-token": self._token})
        if answer is not None and answer[0] == 401:
            self.found()
        said = _object(answer)
        return f"AWS: {said['action']} at {said.get('time', '?')}"[:200] if "action" in said else ""


class Google:
    """``instance/preempted``."""

    HEADERS: Final = {"Metadata-Flavor": "Google"}

    def __init__(self, ask: Ask) -> None:
        self._ask = ask

    def found(self) -> bool:
        """Whether this is the cloud."""
        return self._preempted() in {"TRUE", "FALSE"}

    def notice(self) -> str:
        """Why the machine goes; empty while it stays."""
        return "Google: preempted" if self._preempted() == "TRUE" else ""

    def _preempted(self) -> str:
        answer = self._ask("GET", "/computeMetadata/v1/instance/preempted", self.HEADERS)
        return answer[1].strip() if answer is not None and answer[0] == 200 else ""


class Azure:
    """Scheduled events; the first question switches them on, which may take minutes."""

    def __init__(self, ask: Ask) -> None:
        self._ask = ask

    def found(self) -> bool:
        """Whether this is the cloud."""
        return "vmId" in _object(
            self._ask("GET", "/metadata/instance/compute?api-version=2021-02-01", {"Metadata": "true"})
        )

    def notice(self) -> str:
        """Why the machine goes; empty while it stays."""
        events = _object(
            self._ask("GET", "/metadata/scheduledevents?api-version=2020-07-01", {"Metadata": "true"})
        ).get("Events")
        for event in events if isinstance(events, list) else []:
            if isinstance(event, dict) and event.get("EventType") == "Preempt":
                return f"Azure: preempted at {event.get('NotBefore') or '?'}"[:200]
        return ""


class Lookout:
    """Looks once a call: first for the cloud it is in, then for its word. ``over``: there is nothing more to look for."""

    def __init__(self, ask: Ask) -> None:
        self._clouds: tuple[Aws | Google | Azure, ...] = (Aws(ask), Google(ask), Azure(ask))
        self._found: Aws | Google | Azure | None = None
        self._tries = 0
        self.over = False

    def look(self) -> str:
        """Why the machine will go, once; else empty."""
        if self._found is None:
            self._tries += 1
            self._found = next((cloud for cloud in self._clouds if cloud.found()), None)
            self.over = self._found is None and self._tries >= FIND_TRIES
            if self.over:
                log.info("no cloud here tells when it takes a machine back")
        if self._found is None:
            return ""
        said = self._found.notice()
        self.over = self.over or bool(said)
        return said


def watch(tell: Callable[[str], None], over: threading.Event, ask: Ask | None = None) -> threading.Thread:
    """Look out in a thread of its own, for an answer may take seconds. Ends with ``over``."""
    lookout = Lookout(ask or ask_at())

    def run() -> None:
        while not lookout.over and not over.is_set():
            said = lookout.look()
            if said:
                tell(said)
            over.wait(EVERY_S)

    thread = threading.Thread(target=run, name="notices", daemon=True)
    thread.start()
    return thread


def _object(answer: tuple[int, str] | None) -> dict[str, Any]:
    """A JSON object that was answered; empty for everything else."""
    if answer is None or answer[0] != 200:
        return {}
    try:
        found = msgspec.json.decode(answer[1])
    except (msgspec.DecodeError, UnicodeDecodeError):
        return {}
    return found if isinstance(found, dict) else {}
