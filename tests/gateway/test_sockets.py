"""Where the server listens: a Unix socket for administration, TLS, and ports that are taken."""

import os
import shutil
import ssl
import stat
import subprocess
from pathlib import Path

import httpx
import pytest

from disagctl.gateway.admin import admin_app
from disagctl.gateway.app import public_app
from disagctl.gateway.server import HttpServer
from disagctl.gateway.sockets import bind_tcp, bind_unix
from tests.gateway.fake_service import FakeService
from tests.gateway.serving import ask


@pytest.fixture
async def service() -> FakeService:
    return FakeService(held=True)


@pytest.fixture
def certificate(tmp_path) -> Path:
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("no openssl here")
    make = ["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "1"]
    names = ["-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1"]
    files = ["-keyout", "both.pem", "-out", "cert.pem"]
    subprocess.run([openssl, *make, *names, *files], cwd=tmp_path, check=True, capture_output=True)
    path = tmp_path / "both.pem"
    path.write_bytes(path.read_bytes() + (tmp_path / "cert.pem").read_bytes())
    return path


async def test_tls(service: FakeService, certificate: Path):
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(certificate)
    service.held = False
    server = HttpServer(public_app(service), bind_tcp("127.0.0.1", 0), tls=tls)
    await server.start()
    trust = ssl.create_default_context(cafile=str(certificate))
    async with httpx.AsyncClient(base_url=f"https://127.0.0.1:{server.port}", verify=trust) as client:
        answer = await client.post("/v1/images/generations", json={"prompt": "p", "response_format": "url"})
        assert answer.json()["data"][0]["url"].startswith("https://127.0.0.1:")
    await server.stop()


@pytest.fixture(params=["short", "long"])
def path(request, tmp_path):
    folder = tmp_path / ("d" * 100) / ("e" * 100) if request.param == "long" else tmp_path
    folder.mkdir(parents=True, exist_ok=True)
    return folder / "admin.sock"


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o777])
async def test_admin_socket(service: FakeService, path, umask: int):
    before = os.umask(umask)
    try:
        sock = bind_unix(path)
    finally:
        assert os.umask(before) == umask
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    server = HttpServer(admin_app(service), sock)
    await server.start()
    assert await ask(path) == 200
    with pytest.raises(OSError, match="another process"):
        bind_unix(path)
    assert await ask(path) == 200
    await server.stop()


async def test_a_dead_ones_socket_is_replaced(service: FakeService, path):
    bind_unix(path).close()
    assert path.is_socket()
    server = HttpServer(admin_app(service), bind_unix(path))
    await server.start()
    assert await ask(path) == 200
    await server.stop()


def test_other_files_stay(path):
    path.write_text("precious")
    with pytest.raises(OSError, match="a file in the socket's place"):
        bind_unix(path)
    assert path.read_text() == "precious"


def test_a_port_that_is_taken():
    with bind_tcp("127.0.0.1", 0) as first, pytest.raises(OSError, match="in use"):
        bind_tcp("127.0.0.1", first.getsockname()[1])
