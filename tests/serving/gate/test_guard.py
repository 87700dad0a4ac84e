"""What comes in at all."""

import asyncio
from typing import Any

import httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from rayreel.config.serving import UploadSpec
from rayreel.errors import StorageError
from rayreel.serving.gate import Auth, Guard, caller_of
from rayreel.serving.gate.guard import JSON_BYTES, is_loopback

KEY = "rr_" + "k" * 43
BEARER = {"Authorization": f"Bearer {KEY}"}


class OneKey:
    key_id = "key_1"
    revoked_at = None

    def find_key(self, secret):
        return self if secret == KEY else None


async def told(request: Request):
    caller = caller_of(request)
    body = await request.body()
    return JSONResponse({"owner": caller.owner, "token": caller.token, "bytes": len(body)})


def client_of(auth: Auth, base: str = "http://localhost", **limits: Any) -> httpx.AsyncClient:
    app = Starlette(routes=[Route("/{path:path}", told, methods=["GET", "POST", "HEAD"])])
    guarded = Guard(app, auth, UploadSpec(**limits))
    return httpx.AsyncClient(transport=httpx.ASGITransport(guarded), base_url=base)


def ask(client: httpx.AsyncClient, method: str, url: str, **options):
    return asyncio.run(client.request(method, url, **options))


@pytest.fixture
def keyed():
    return client_of(Auth(OneKey(), True, secret=b"s"), "http://service.example")


@pytest.fixture
def local():
    return client_of(Auth(OneKey(), False, secret=b"s"))


def test_everything_below_v1_needs_a_key(keyed):
    for path in ("/v1", "/v1/", "/v1/videos", "/v1/not/there", "/v1//videos"):
        answer = ask(keyed, "GET", path)
        assert answer.status_code == 401
        assert answer.json()["error"]["code"] == "invalid_api_key"
        assert answer.headers["www-authenticate"] == "Bearer"
        assert ask(keyed, "GET", path, headers=BEARER).json()["owner"] == "key_1"


@pytest.mark.parametrize("path", ["/", "/healthz", "/readyz", "/openapi.json", "/docs", "/a.js"])
def test_page_and_probes_need_no_key(keyed, path):
    assert ask(keyed, "GET", path).status_code == 200


@pytest.mark.parametrize("query", ["api_key", "key", "token", "access_token", "authorization"])
def test_no_key_is_taken_from_an_address(keyed, query):
    assert ask(keyed, "GET", f"/v1/videos?{query}={KEY}").status_code == 401


def test_signed_addresses_are_for_reading_content_and_events_only(keyed):
    seen = ask(keyed, "GET", "/v1/videos/a/content?token=t").json()
    assert (seen["owner"], seen["token"]) == (None, "t")
    assert ask(keyed, "GET", "/v1/videos/a/events?token=t").status_code == 200
    assert ask(keyed, "GET", "/v1/videos/a/preview?token=t").status_code == 200
    assert ask(keyed, "POST", "/v1/videos/a/content?token=t").status_code == 401
    for path in ("/v1/videos/a", "/v1/videos/a/content/x", "/v1/videos/a/b/content"):
        assert ask(keyed, "GET", f"{path}?token=t").status_code == 401


def test_a_wrong_key_is_not_made_good_by_a_token(keyed):
    wrong = {"Authorization": "Bearer rr_wrong"}
    path = "/v1/videos/a/content?token=t"
    assert ask(keyed, "GET", path, headers=wrong).status_code == 401


def test_answer_says_when_keys_cannot_be_looked_up():
    class Down:
        def find_key(self, _):
            raise StorageError("gone")

    answer = ask(client_of(Auth(Down(), True, secret=b"s")), "GET", "/v1/videos", headers=BEARER)
    assert answer.status_code == 503
    assert "retry-after" in answer.headers


@pytest.mark.parametrize(
    ("host", "ours"),
    [
        *[(name, True) for name in ("localhost", "localhost:8000", "LOCALHOST", "a.localhost:1")],
        *[(name, True) for name in ("127.0.0.1", "127.8.8.8:80", "[::1]", "[::1]:8000")],
        *[(name, False) for name in ("evil.example", "localhost.evil.example", "10.0.0.1", "")],
        *[
            (name, False)
            for name in ("evil@localhost", "localhost@evil", "0.0.0.0", "127.0.0.1.nip.io")
        ],
        *[
            (name, False)
            for name in ("[::ffff:10.0.0.1]", "localhost:x", "a b", "[::1", "2130706433")
        ],
    ],
)
def test_names_of_the_loopback(host, ours):
    assert is_loopback(host) is ours


def test_without_keys_a_page_cannot_reach_the_service_by_a_name_of_its_own(local):
    for path in ("/v1/videos", "/", "/openapi.json"):
        answer = ask(local, "GET", path, headers={"Host": "rebound.example"})
        assert answer.status_code == 403
        assert answer.json()["error"]["code"] == "host_not_allowed"
    assert ask(local, "GET", "/healthz", headers={"Host": "10.1.2.3:8000"}).status_code == 200


@pytest.mark.parametrize(
    "origin",
    ["https://evil.example", "null", "http://localhost:3000", "http://127.0.0.1", "file://", ""],
)
def test_without_keys_pages_of_other_sites_are_refused(local, origin):
    answer = ask(local, "POST", "/v1/videos", headers={"Origin": origin})
    assert answer.status_code == 403
    assert answer.json()["error"]["code"] == "origin_not_allowed"


def test_own_page_may_ask(local):
    for host, origin in (
        ("localhost:8000", "http://localhost:8000"),
        ("localhost", "http://localhost"),
    ):
        headers = {"Host": host, "Origin": origin}
        assert ask(local, "POST", "/v1/videos", headers=headers).json()["owner"] == ""


def test_any_name_will_do_where_something_else_guards_the_service():
    client = client_of(Auth(OneKey(), False, secret=b"s", any_host=True), "http://service.example")
    assert ask(client, "GET", "/v1/videos").status_code == 200
    headers = {"Origin": "https://evil.example"}
    assert ask(client, "POST", "/v1/videos", headers=headers).status_code == 403


def test_a_service_below_another_path_needs_keys_too():
    app = Starlette(routes=[Route("/{path:path}", told)])
    guarded = Guard(app, Auth(OneKey(), True, secret=b"s"), UploadSpec())
    transport = httpx.ASGITransport(guarded, root_path="/reel")
    client = httpx.AsyncClient(transport=transport, base_url="http://service.example")
    assert ask(client, "GET", "/reel/v1/videos").status_code == 401
    assert ask(client, "GET", "/reel/healthz").status_code == 200
    assert ask(client, "GET", "/v1/videos").status_code == 401


async def _pieces(count: int, size: int):
    for _ in range(count):
        yield bytes(size)


@pytest.mark.parametrize("stated", [True, False])
def test_body_is_refused_once_it_is_too_large(local, stated):
    content = bytes(JSON_BYTES + 1) if stated else _pieces(JSON_BYTES // 2**20 + 1, 2**20)
    answer = ask(local, "POST", "/v1/videos", content=content)
    assert answer.status_code == 413
    assert str(JSON_BYTES) in answer.json()["error"]["message"]


def test_what_is_left_of_a_large_body_is_not_read(local):
    asked = []

    async def endless():
        while True:
            asked.append(1)
            yield bytes(2**20)

    assert ask(local, "POST", "/v1/videos", content=endless()).status_code == 413
    assert len(asked) <= JSON_BYTES // 2**20 + 2


def test_forms_may_be_as_large_as_their_files():
    client = client_of(Auth(OneKey(), False, secret=b"s"), max_bytes=1000)
    form = {"Content-Type": "multipart/form-data; boundary=x"}
    room = 1000 + 2 * 2**20
    assert ask(client, "POST", "/", content=bytes(room), headers=form).json()["bytes"] == room
    assert ask(client, "POST", "/", content=bytes(room + 1), headers=form).status_code == 413


@pytest.mark.parametrize("length", ["9" * 30, "1e3"])
def test_strange_lengths_do_not_break_it(local, length):
    answer = ask(local, "POST", "/", content=b"ab", headers={"Content-Length": length})
    assert answer.status_code in (200, 413)
