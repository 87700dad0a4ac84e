"""Files from other hosts: only from those that are allowed, and only from where they really are."""

import asyncio
import base64
import ipaddress
import time
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from rayreel.config.serving import UploadSpec
from rayreel.data.storage import Storage
from rayreel.errors import MediaError
from rayreel.serving.gate import FileGate, FileRefused
from rayreel.serving.gate.fetch import Fetcher, is_public
from tests.serving.gate.jobs import JOB_ID
from tests.serving.gate.test_files import png
from tests.serving.gate.tls import Authority, Server, running

HOST = "files.example"


@pytest.fixture(scope="module")
def authority(tmp_path_factory) -> Authority:
    return Authority(tmp_path_factory.mktemp("tls"))


def answer(body: bytes, status: str = "200 OK", *headers: str) -> bytes:
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", "Connection: close", *headers]
    return "\r\n".join([*lines, "", ""]).encode() + body


class Names:
    """A resolver that gives its answers one after the other, and the last one again."""

    def __init__(self, *answers: str | list[str]) -> None:
        self.answers = [[a] if isinstance(a, str) else a for a in answers]
        self.asked: list[tuple[str, int]] = []

    async def __call__(self, host: str, port: int) -> list[str]:
        self.asked.append((host, port))
        return self.answers[min(len(self.asked), len(self.answers)) - 1]


async def read(fetcher: Fetcher, url: str, max_bytes: int = 10**6) -> bytes:
    return b"".join([piece async for piece in fetcher(url, max_bytes)])


def fetched(authority: Authority, server: Server, *, path: str = "/a.png", **options) -> bytes:
    """What a fetcher that may connect to this machine gets from a server on it."""

    async def go() -> bytes:
        context = authority.server(options.pop("proves", HOST))
        async with running(server, context):
            fetcher = Fetcher(
                [f"{HOST}:{server.port}"],
                resolve=options.pop("resolve", Names("127.0.0.1")),
                is_allowed=lambda _: True,
                context=authority.client(),
                **options,
            )
            return await read(fetcher, f"https://{HOST}:{server.port}{path}")

    return asyncio.run(go())


def test_file_comes_from_an_allowed_host(authority):
    server = Server(answer(b"picture"))
    assert fetched(authority, server, path="/a/b.png?size=1#top") == b"picture"
    (request,) = server.requests
    lines = request.lower().split("\r\n")
    assert lines[0] == "get /a/b.png?size=1 http/1.1"
    assert f"host: {HOST}:{server.port}" in lines
    assert not any(line.startswith(("authorization", "cookie")) for line in lines)


def test_certificate_must_be_the_hosts(authority):
    server = Server(answer(b"picture"))
    with pytest.raises(MediaError, match="cannot be read from: ConnectError"):
        fetched(authority, server, proves="other.example")
    assert server.requests == []


def test_redirects_are_not_followed(authority):
    trap = Server(answer(b"secret"))
    location = "Location: https://127.0.0.1/secret"
    for status in ("301 Moved", "302 Found", "303 See Other", "307 Again", "308 Moved"):
        server = Server(answer(b"", status, location))
        with pytest.raises(MediaError, match="redirect, which is not followed"):
            fetched(authority, server)
    assert trap.requests == []


@pytest.mark.parametrize("status", ["404 Not Found", "500 Broken", "204 Nothing", "206 Partial"])
def test_only_a_whole_file_is_an_answer(authority, status):
    with pytest.raises(MediaError, match=f"status {status[:3]}; expected 200"):
        fetched(authority, Server(answer(b"", status)))


def test_compressed_answers_are_refused(authority):
    packed = answer(b"x", "200 OK", "Content-Encoding: gzip")
    with pytest.raises(MediaError, match="compressed"):
        fetched(authority, Server(packed))


def test_size_is_limited_whatever_the_header_says(authority):
    stated = Server(answer(bytes(10**6 + 1)))
    with pytest.raises(MediaError, match="more than 1000000 bytes"):
        fetched(authority, stated)
    endless = Server(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n", endless=True)
    with pytest.raises(MediaError, match="more than 1000000 bytes"):
        fetched(authority, endless)


def test_time_is_limited(authority):
    start = time.monotonic()
    with pytest.raises(MediaError, match=r"longer than 0\.5 s"):
        fetched(authority, Server(b"", silent=True), fetch_s=0.5)
    assert time.monotonic() - start < 10


def test_broken_answers_are_refused(authority):
    for broken in (b"\x00\x01\x02\r\n\r\n", b"", b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nx"):
        with pytest.raises(MediaError, match="cannot be read from: RemoteProtocolError"):
            fetched(authority, Server(broken))


def test_connection_goes_to_the_address_that_was_checked(authority):
    """The name changes what it points to between the check and the connection."""

    async def go() -> tuple[bytes, Names, Server]:
        context = authority.server(HOST)
        public, trap = Server(answer(b"public")), Server(answer(b"secret"))
        names = Names("127.0.0.1", "127.0.0.2")
        async with AsyncExitStack() as servers:
            await servers.enter_async_context(running(public, context))
            await servers.enter_async_context(running(trap, context, "127.0.0.2", public.port))
            fetcher = Fetcher(
                [f"{HOST}:{public.port}"],
                resolve=names,
                is_allowed=lambda address: str(address) == "127.0.0.1",
                context=authority.client(),
            )
            return await read(fetcher, f"https://{HOST}:{public.port}/"), names, trap

    found, names, trap = asyncio.run(go())
    assert (found, len(names.asked), trap.requests) == (b"public", 1, [])


def test_proxies_of_the_environment_are_not_used(authority, monkeypatch):
    for name in ("HTTPS_PROXY", "ALL_PROXY", "https_proxy", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    monkeypatch.delenv("NO_PROXY", raising=False)
    assert fetched(authority, Server(answer(b"direct"))) == b"direct"


INSIDE = [
    *("127.0.0.1", "127.1.2.3", "10.0.0.1", "172.16.0.1", "192.168.1.1", "169.254.169.254"),
    *("0.0.0.0", "100.64.0.1", "192.0.0.1", "192.0.2.1", "198.18.0.1", "224.0.0.1", "240.0.0.1"),
    *("255.255.255.255", "::1", "::", "fe80::1", "fe80::1%eth0", "fc00::1", "fd12::1", "ff02::1"),
    *("::ffff:10.0.0.1", "::ffff:8.8.8.8", "::127.0.0.1", "64:ff9b::a00:1", "64:ff9b:1::a00:1"),
    *("2002:7f00:1::", "2001:0:7f00:1::", "2001:db8::1", "fec0::1"),
]


@pytest.mark.parametrize("address", INSIDE)
def test_addresses_inside_are_not_public(address):
    assert not is_public(ipaddress.ip_address(address))


@pytest.mark.parametrize("address", ["8.8.8.8", "151.101.1.6", "2606:4700::1111", "2a00:1450::1"])
def test_addresses_of_the_internet_are_public(address):
    assert is_public(ipaddress.ip_address(address))


@pytest.mark.parametrize(
    "answers",
    [["10.0.0.1"], ["8.8.8.8", "10.0.0.1"], ["::ffff:127.0.0.1"], [], ["not an address"]],
)
def test_names_that_point_inside_are_refused(answers):
    fetcher = Fetcher([HOST], resolve=Names(answers))
    with pytest.raises(MediaError, match="not at a public address"):
        asyncio.run(read(fetcher, f"https://{HOST}/a"))


def test_a_name_that_is_not_there_is_refused():
    async def nothing(host: str, port: int) -> list[str]:
        raise OSError("no such name")

    with pytest.raises(MediaError, match="cannot be read from: OSError"):
        asyncio.run(read(Fetcher([HOST], resolve=nothing), f"https://{HOST}/a"))


@pytest.mark.parametrize(
    "url",
    [
        *("http://files.example/a", "ftp://files.example/a", "//files.example/a", "files.example"),
        *(
            "https://user@files.example/",
            "https://user:pass@files.example/",
            "https://@files.example",
        ),
        *(
            "https://files.example\\@evil.example/",
            "https://files.example /",
            "https:///files.example",
        ),
        *("https://evil.example/files.example", "https://evil.example#files.example"),
        *("https://evil.example?files.example", "https://files.example.evil.example/"),
        *("https://evilfiles.example/", "https://files.example./", "https://files.example:444/"),
        *("https://files.example:0/", "https://files.example:/", "https://files.example:99999/"),
        *("https://127.0.0.1/", "https://[::1]/", "https://2130706433/", "https://0x7f000001/"),
        *(
            "https://files%2eexample/",
            "https://f\u0131les.example/",
            "https://files.example/\r\nX: y",
        ),
        *(
            "https://files.example/a\nb",
            "https://files.example/é",
            "https://",
            "https://files.example@",
        ),
    ],
)
def test_other_urls_are_refused_before_anybody_is_asked(url):
    names = Names("8.8.8.8")
    with pytest.raises(MediaError, match=r"expected a URL|not fetched from"):
        asyncio.run(read(Fetcher([HOST], resolve=names), url))
    assert names.asked == []


def test_name_of_a_host_is_the_same_in_any_letters():
    names = Names("10.0.0.1")
    with pytest.raises(MediaError, match="not at a public"):
        asyncio.run(read(Fetcher(["Files.Example"], resolve=names), "https://FILES.example"))
    assert names.asked == [(HOST, 443)]


def test_what_was_fetched_is_an_upload_like_any_other(authority, tmp_path):
    async def go(body: bytes, max_bytes: int) -> dict[str, object]:
        server = Server(answer(body, "200 OK", "Content-Type: image/png"))
        async with running(server, authority.server(HOST)):
            fetcher = Fetcher(
                [f"{HOST}:{server.port}"],
                resolve=Names("127.0.0.1"),
                is_allowed=lambda _: True,
                context=authority.client(),
            )
            gate = FileGate(Storage(tmp_path), UploadSpec(max_bytes=max_bytes), fetcher)
            body_ = {"images": [{"path": f"https://{HOST}:{server.port}/../../x.sh"}]}
            return await gate.place(JOB_ID, body_, {})

    placed = asyncio.run(go(png(), 10**6))
    (name,) = Path(tmp_path, "uploads", JOB_ID).iterdir()
    assert placed == {"images": [{"path": str(name)}]}
    assert name.suffix == ".png"
    for body, limit in ((b"#EXTM3U\n", 10**6), (png(), 10)):
        with pytest.raises(FileRefused):
            asyncio.run(go(body, limit))


def test_no_host_is_allowed_unless_someone_says_so(tmp_path):
    gate = FileGate(Storage(tmp_path), UploadSpec())
    data = base64.b64encode(png()).decode()
    asyncio.run(gate.place(JOB_ID, {"images": [{"path": f"data:image/png;base64,{data}"}]}, {}))
    with pytest.raises(FileRefused, match="hosts that are: none"):
        asyncio.run(gate.place(JOB_ID, {"images": [{"path": "https://example.com/a"}]}, {}))
