"""OpenAI's own client against a real server."""

import openai
import pytest

from rayreel.serving.api import create_api
from tests.serving.api.server import serving
from tests.serving.api.test_videos import picture

pytestmark = pytest.mark.filterwarnings(
    # Their service for videos ends; the shapes of its API stay.
    "ignore:The Sora API is scheduled:DeprecationWarning"
)


@pytest.fixture
def service(parts):
    service, worker = parts
    worker.by_itself = True
    return service


@pytest.fixture
def openai_client(service):
    with (
        serving(create_api(service)) as url,
        openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as client,
    ):
        yield client


def test_a_clip_from_asking_to_its_removal(openai_client, worker):
    video = openai_client.videos.create(
        prompt="a cat", size="64x64", seconds="1", model="rayreel",
        input_reference=("a.png", picture(), "image/png"), extra_body={"tags": {"shot": "1"}},
    )  # fmt: skip
    video = openai_client.videos.poll(video.id, poll_interval_ms=50)
    assert (video.status, video.progress, video.size) == ("completed", 100, "64x64")
    assert openai_client.videos.retrieve(video.id).id == video.id
    assert [one.id for one in openai_client.videos.list(limit=1)] == [video.id]
    content = openai_client.videos.download_content(video.id)
    assert content.read() == worker.clip.read_bytes()
    thumbnail = openai_client.videos.download_content(video.id, variant="thumbnail")
    assert thumbnail.read()[8:12] == b"WEBP"
    remix = openai_client.videos.remix(video.id, prompt="a dog")
    assert remix.remixed_from_video_id == video.id
    assert openai_client.videos.delete(video.id).deleted
    with pytest.raises(openai.NotFoundError):
        openai_client.videos.retrieve(video.id)


def test_lists_are_paged_through(openai_client):
    ids = [openai_client.videos.create(prompt="x", size="64x64", seconds="1").id for _ in range(3)]
    assert [video.id for video in openai_client.videos.list(limit=2)] == ids[::-1]


def test_pictures_and_models(openai_client):
    answer = openai_client.images.generate(prompt="a cat", size="64x64", model="rayreel")
    assert answer.data[0].b64_json.startswith("iVBOR")
    assert [model.id for model in openai_client.models.list()] == ["rayreel"]
    assert openai_client.models.retrieve("rayreel").owned_by == "rayreel"


def test_errors_are_those_that_the_client_knows(openai_client):
    with pytest.raises(openai.BadRequestError) as error:
        openai_client.videos.create(prompt="x", size="63x64", seconds="1")
    assert error.value.param in ("width", "size")
    with pytest.raises(openai.NotFoundError) as missing:
        openai_client.videos.create(prompt="x", model="sora-2")
    assert missing.value.code == "model_not_found"
