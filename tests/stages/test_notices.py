"""The clouds' metadata services, played: who is found, what is told once, and that elsewhere the asking ends."""

from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, HTTPServer
from threading import Event, Thread

import pytest

from stages.notices import FIND_TRIES, Lookout, ask_at, watch

AWS = "/latest/meta-data/spot/instance-action"
GOOGLE = "/computeMetadata/v1/instance/preempted"
AZURE = "/metadata/scheduledevents?api-version=2020-07-01"
COMPUTE = "/metadata/instance/compute?api-version=2021-02-01"


class Cloud:
    """Answers by path; ``pages`` may change as time passes."""

    def __init__(self, **pages: str) -> None:
        self.pages: dict[str, str] = {f"GET {path}": text for path, text in pages.items()}
        self.asked: list[str] = []
        self.token = ""
        self.silent = False

    def __call__(self, method: str, path: str, headers: Mapping[str, str]) -> tuple[int, str] | None:
        self.asked.append(path)
        if self.silent:
            return None
        if self.token and method == "GET" and headers.get("X-aws-ec2-metadata-token") != self.token:
            return 401, ""
        if self.token and (method, path) == ("PUT", "/latest/api/token"):
            return 200, self.token
        text = self.pages.get(f"{method} {path}")
        return (200, text) if text is not None else (404, "<html>not here</html>")


def aws() -> Cloud:
    cloud = Cloud()
    cloud.token = "t1"  # played
    return cloud


def test_aws_tells_of_the_end_once() -> None:
    cloud = aws()
    lookout = Lookout(cloud)
    assert [lookout.look(), lookout.look()] == ["", ""]
    cloud.pages[f"GET {AWS}"] = '{"action": "terminate", "time": "2026-11-30T08:22:00Z"}'
    assert lookout.look() == "AWS: terminate at 2026-11-30T08:22:00Z"
    assert lookout.over


def test_a_token_that_has_run_out_is_had_anew() -> None:
    cloud = aws()
    lookout = Lookout(cloud)
    lookout.look()
    cloud.token = "t2"  # played
    cloud.pages[f"GET {AWS}"] = '{"action": "stop"}'
    assert [lookout.look(), lookout.look()] == ["", "AWS: stop at ?"]


def test_google_says_true() -> None:
    cloud = Cloud(**{GOOGLE: "FALSE\n"})
    lookout = Lookout(cloud)
    assert lookout.look() == ""
    cloud.pages[f"GET {GOOGLE}"] = "TRUE\n"
    assert lookout.look() == "Google: preempted"


def test_azure_has_events_of_other_kinds_too() -> None:
    cloud = Cloud(**{COMPUTE: '{"vmId": "1"}', AZURE: '{"Events": [{"EventType": "Reboot"}]}'})
    lookout = Lookout(cloud)
    assert lookout.look() == ""
    cloud.pages[f"GET {AZURE}"] = '{"Events": [{"EventType": "Preempt", "NotBefore": "soon"}]}'
    assert lookout.look() == "Azure: preempted at soon"


@pytest.mark.parametrize("answer", ["", "[]", "null", "{", '{"Events": 3}', '{"Events": [1]}', "\x00"])
def test_an_answer_that_is_none_is_no_notice(answer: str) -> None:
    cloud = Cloud(**{COMPUTE: '{"vmId": "1"}', AZURE: answer})
    lookout = Lookout(cloud)
    assert lookout.look() == ""
    assert not lookout.over


def test_a_service_that_is_late_is_waited_for_and_none_is_not_asked_for_ever() -> None:
    cloud = Cloud(**{GOOGLE: "FALSE"})
    cloud.silent = True
    lookout = Lookout(cloud)
    lookout.look()
    cloud.silent = False
    lookout.look()
    cloud.silent = True  # a gap is nothing to give up for
    assert [lookout.look() for _ in range(20)] == [""] * 20
    assert not lookout.over
    nowhere = Lookout(Cloud())
    for _ in range(FIND_TRIES):
        assert not nowhere.over
        nowhere.look()
    assert nowhere.over


class Page(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        there = self.path == GOOGLE and self.headers["Metadata-Flavor"] == "Google"
        self.send_response(200 if there else 404)
        self.end_headers()
        self.wfile.write(b"TRUE" if there else b"")

    do_PUT = do_GET  # noqa: N815

    def log_message(self, *_: object) -> None: ...


def test_over_http_in_a_thread_of_its_own() -> None:
    server = HTTPServer(("127.0.0.1", 0), Page)
    Thread(target=server.serve_forever, daemon=True).start()
    told: list[str] = []
    try:
        watch(told.append, Event(), ask_at("127.0.0.1", server.server_port)).join(30)
        assert told == ["Google: preempted"]
    finally:
        server.shutdown()
        server.server_close()
    assert ask_at("127.0.0.1", server.server_port)("GET", "/", {}) is None
