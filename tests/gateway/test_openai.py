"""The stock client against the real server."""

import asyncio
import base64
from collections.abc import AsyncIterator

import openai
import pytest

from disagctl.views import JobError
from tests.gateway.fake_service import MP4, PNG, FakeService
from tests.gateway.serving import serving, until

pytestmark = pytest.mark.filterwarnings("ignore:.*Sora API:DeprecationWarning")


@pytest.fixture
async def service() -> FakeService:
    return FakeService(tokens={"sk-right"})


@pytest.fixture
async def client(service: FakeService) -> AsyncIterator[openai.AsyncOpenAI]:
    async with serving(service, poll_ms=(1, 1)) as server:
        url = f"http://127.0.0.1:{server.port}/v1"
        async with openai.AsyncOpenAI(api_key="sk-right", base_url=url, max_retries=0) as client:
            yield client


async def test_image_as_base64(client: openai.AsyncOpenAI):
    answer = await client.images.generate(prompt="p", model="tiny-image", n=2, size="512x256", extra_body={"seed": 5})
    assert answer.data is not None
    assert [base64.b64decode(item.b64_json or "") for item in answer.data] == [PNG, PNG]
    assert (answer.size, answer.output_format) == ("512x256", "png")


async def test_image_by_url(client: openai.AsyncOpenAI):
    answer = await client.images.generate(prompt="p", response_format="url", quality="high", user="me", style="vivid")
    assert answer.data is not None
    fetched = await client._client.get(str(answer.data[0].url), headers={"authorization": "Bearer sk-right"})
    assert fetched.content == PNG


async def test_video(client: openai.AsyncOpenAI, service: FakeService):
    service.held = True
    video = await client.videos.create(prompt="p", model="tiny-video", seconds="4", size="1280x720")
    assert (video.status, video.seconds, video.size, video.progress) == ("queued", "4", "1280x720", 0)
    service.change(video.id, status="running", progress=40, started_at=1.0)
    assert (await client.videos.retrieve(video.id)).status == "in_progress"
    service.finish(video.id)
    done = await client.videos.poll(video.id)
    assert (done.status, done.progress) == ("completed", 100)
    content = await client.videos.download_content(video.id)
    assert content.read() == MP4
    assert [found.id async for found in client.videos.list(limit=1)] == [video.id]
    deleted = await client.videos.delete(video.id)
    assert (deleted.id, deleted.deleted, deleted.object) == (video.id, True, "video.deleted")
    with pytest.raises(openai.NotFoundError):
        await client.videos.retrieve(video.id)


async def test_create_and_poll(client: openai.AsyncOpenAI, service: FakeService):
    service.held = True
    running = asyncio.create_task(client.videos.create_and_poll(prompt="p", extra_body={"fps": 24, "seed": 1}))
    await until(lambda: service.views)
    service.finish(next(iter(service.views)), "failed", JobError("dead_letter", "3 tries"))
    video = await running
    assert video.error is not None
    assert (video.status, video.error.code) == ("failed", "dead_letter")
    assert service.made[0].params["fps"] == 24


async def test_video_from_a_file(client: openai.AsyncOpenAI, service: FakeService):
    await client.videos.create(prompt="p", model="tiny-i2v", input_reference=("cat.png", PNG, "image/png"))
    assert service.made[0].upload == PNG


async def test_video_from_a_data_url(client: openai.AsyncOpenAI, service: FakeService):
    url = "data:image/png;base64," + base64.b64encode(PNG).decode()
    # Its types allow {"image_url": …} as an argument, but it fails on that by itself; a form field it can send.
    extra = {"input_reference": {"image_url": url}}
    await client.videos.create(prompt="p", model="tiny-i2v", extra_body=extra)
    assert service.made[0].upload == PNG


async def test_pages(client: openai.AsyncOpenAI):
    made = [(await client.videos.create(prompt=str(i))).id for i in range(5)]
    assert [video.id async for video in client.videos.list(limit=2, order="asc")] == made


async def test_models(client: openai.AsyncOpenAI):
    models = [model.id async for model in client.models.list()]
    assert models == ["tiny-image", "tiny-video", "tiny-i2v"]
    assert (await client.models.retrieve("org/tiny-image")).id == "tiny-image"


async def test_errors(client: openai.AsyncOpenAI):
    with pytest.raises(openai.AuthenticationError) as caught:
        await client.with_options(api_key="sk-wrong").models.list()
    assert (caught.value.code, caught.value.type) == ("invalid_api_key", "authentication_error")
    assert str(caught.value.request_id).startswith("req_")
    with pytest.raises(openai.NotFoundError, match="tiny-image") as missing:
        await client.images.generate(prompt="p", model="dall-e-3")
    assert (missing.value.code, missing.value.param) == ("model_not_found", "model")
    with pytest.raises(openai.BadRequestError) as bad:
        await client.images.generate(prompt="p", extra_body={"steps": 3})
    assert bad.value.param == "steps"


async def test_failures_are_not_retried(client: openai.AsyncOpenAI, service: FakeService):
    service.held = True
    asking = asyncio.create_task(client.with_options(max_retries=5).images.generate(prompt="p"))
    await service.waiting.wait()
    service.finish("img_shop_00000001", "failed", JobError("dead_letter", "3 tries"))
    with pytest.raises(openai.InternalServerError):
        await asking
    assert len(service.made) == 1
