"""An app on a fake service, and a client that speaks to it without a socket."""

from collections.abc import AsyncIterator

import httpx
import pytest

from disagctl.gateway.app import public_app
from tests.gateway.fake_service import FakeService


@pytest.fixture
async def service() -> FakeService:
    return FakeService()


@pytest.fixture
async def client(service: FakeService) -> AsyncIterator[httpx.AsyncClient]:
    async with connect(service) as client:
        yield client


def connect(service: FakeService, **headers: str) -> httpx.AsyncClient:
    transport = httpx.ASGITransport(public_app(service))
    return httpx.AsyncClient(transport=transport, base_url="http://shop.test:8000", headers=headers)
