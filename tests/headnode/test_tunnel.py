"""The commands reach a distant head's administration socket; here SSH is a process on this machine."""

import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from socketserver import ThreadingMixIn, UnixStreamServer

import msgspec
import pytest

from disagctl.admin_client import head_status
from disagctl.headnode import seen, ssh
from disagctl.headnode.ssh import command
from disagctl.state import HeadNode, ServicePaths, read_record
from disagctl.views import HeadView, NodeView, StatusView
from tests.headnode.kit import away

NODE = NodeView("n1", "sky", "aws/us-east-1 g6.xlarge L4:1", "up", 1.0, 0.8, wish="l4", provider_id="dis-1")
VIEW = StatusView("shop", "ready", "http://192.0.2.7:8460", HeadView(7, "there", "1", 0.0), nodes=[NODE])


class Server(ThreadingMixIn, UnixStreamServer):
    """HTTP on a Unix socket."""

    daemon_threads = True


class Admin(BaseHTTPRequestHandler):
    """Answers everything with a status."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        body = msgspec.json.encode(VIEW)
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def address_string(self) -> str:
        return "there"

    def log_message(self, *_: object) -> None:
        """Nothing."""


@pytest.fixture
def there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Another state directory, with the head's socket; `ssh` runs commands with that one."""
    home = tmp_path / "there"
    folder = home / "services" / "shop"
    folder.mkdir(parents=True)

    def local(where: ServicePaths, head: HeadNode, *words: str) -> list[str]:
        return ["env", f"DISAGCTL_HOME={home}", sys.executable, "-m", *words]

    monkeypatch.setattr(ssh, "command", local)
    with Server(str(folder / "admin.sock"), Admin) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield home
        server.shutdown()
        thread.join()


def test_status_comes_through_and_its_nodes_are_remembered(there: Path) -> None:
    where = away()
    assert seen.told(where) == ""
    view = head_status(where)
    assert view is not None
    assert (view.state, view.nodes[0].id) == ("ready", "n1")
    assert seen.told(where) == "dis-1 (aws/us-east-1 g6.xlarge L4:1, $0.80/h)"


@pytest.mark.usefixtures("there")
def test_a_machine_that_is_not_up_is_no_head() -> None:
    assert head_status(away(host="")) is None


def test_a_session_that_fails_is_no_head(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ssh, "command", lambda *_: ["false"])
    assert head_status(away()) is None


def test_what_ssh_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ssh, "_control_folder", lambda: tmp_path)
    where = away()
    head = read_record(where).head
    assert head is not None
    head.proxy = "jump %h"
    argv = command(where, head, "disagctl.cli.main", "logs", "shop", "--stage", "a b;c")
    assert argv[-1] == "/opt/disagctl/as-head disagctl.cli.main logs shop --stage 'a b;c'"
    assert argv[-3:-1] == ["ubuntu@192.0.2.7", "--"]
    assert {"StrictHostKeyChecking=accept-new", f"IdentityFile={where.head_key}", "ProxyCommand=jump %h"} <= set(argv)
