"""Files from allow-listed hosts: https, to the very address that was checked, and no further."""

import asyncio
import ipaddress
import re
import socket
import ssl
from collections.abc import AsyncGenerator, Awaitable, Callable, Collection
from contextlib import aclosing
from typing import TypeAlias

import httpx

from rayreel.errors import MediaError

Address: TypeAlias = ipaddress.IPv4Address | ipaddress.IPv6Address
Resolve: TypeAlias = Callable[[str, int], Awaitable[list[str]]]

FETCH_S = 60.0
"""For the whole of a file."""

IDLE_S = 10.0
"""For connecting, and for each piece."""

# What browsers make of backslashes, spaces and "@" differs from what others make of them.
_URL = re.compile(
    r"https://(?P<host>[A-Za-z0-9.-]{1,253})(?::(?P<port>[0-9]{1,5}))?"
    r"(?P<target>[/?][!$-;=?-Z_a-z~%]*)?(?:#.*)?"
)
# These carry IPv4 addresses to wherever a gateway leads.
_CARRIERS = tuple(
    ipaddress.IPv6Network(net)
    for net in (
        "::/96",
        "::ffff:0:0/96",
        "64:ff9b::/96",
        "64:ff9b:1::/48",
        "2002::/16",
        "2001::/32",
    )
)


class Fetcher:
    """Reads files from allow-listed hosts.

    Attributes:
        hosts: Names that may be asked, in small letters: ``host``, or ``host:port`` for another
            port than 443.
    """

    def __init__(
        self,
        hosts: Collection[str],
        *,
        resolve: Resolve | None = None,
        is_allowed: Callable[[Address], bool] | None = None,
        context: ssl.SSLContext | None = None,
        fetch_s: float = FETCH_S,
    ) -> None:
        """Fetch nothing yet.

        Args:
            hosts: Names that may be asked.
            resolve: From name and port to addresses; by default the system's resolver.
            is_allowed: Which addresses may be connected to; by default :func:`is_public`.
            context: Of TLS; by default with the usual authorities.
            fetch_s: Longest time for a file.
        """
        self.hosts = frozenset(host.lower() for host in hosts)
        self._resolve = resolve or _resolve
        self._is_allowed = is_allowed or is_public
        self._context = context or httpx.create_ssl_context(trust_env=False)
        self._fetch_s = fetch_s

    async def __call__(self, url: str, max_bytes: int) -> AsyncGenerator[bytes, None]:
        """Pieces of the file behind a URL.

        Args:
            url: Of an allow-listed host.
            max_bytes: More are refused.

        Raises:
            MediaError: If the URL may not be fetched, or is not answered with a file in time.
        """
        host, port, target = self._parts(url)
        try:
            async with asyncio.timeout(self._fetch_s):
                address = await self._address(host, port)
                read = self._read(address, host, port, target, max_bytes)
                async with aclosing(read) as pieces:
                    async for piece in pieces:
                        yield piece
        except TimeoutError as error:
            raise MediaError(f"{host} took longer than {self._fetch_s:g} s") from error
        except (httpx.HTTPError, httpx.InvalidURL, OSError) as error:
            # Its message may tell what answers inside a network; the class is enough.
            raise MediaError(f"{host} cannot be read from: {type(error).__name__}") from error

    def _parts(self, url: str) -> tuple[str, int, str]:
        found = _URL.fullmatch(url)
        if found is None:
            raise MediaError(
                "expected a URL such as https://host/path, without user, spaces or backslashes"
            )
        host, port = found["host"].lower(), int(found["port"] or 443)
        place = host if port == 443 else f"{host}:{port}"
        if place not in self.hosts:
            known = ", ".join(sorted(self.hosts)) or "none; send the file itself"
            raise MediaError(f"files are not fetched from {place}; hosts that are: {known}")
        target = found["target"] or "/"
        return host, port, target if target.startswith("/") else f"/{target}"

    async def _address(self, host: str, port: int) -> Address:
        """The address to connect to: one look-up, so that its answer is what was checked."""
        answers = await self._resolve(host, port)
        try:
            addresses = [ipaddress.ip_address(answer) for answer in answers]
        except ValueError:
            addresses = []
        # One that is not public makes the others no better.
        if not addresses or not all(self._is_allowed(address) for address in addresses):
            raise MediaError(f"{host} is not at a public address")
        return addresses[0]

    async def _read(
        self, address: Address, host: str, port: int, target: str, max_bytes: int
    ) -> AsyncGenerator[bytes, None]:
        named = host if port == 443 else f"{host}:{port}"
        url = httpx.URL(scheme="https", host=str(address), port=port, raw_path=target.encode())
        request = httpx.Request(
            "GET",
            url,
            headers={"Host": named, "Accept": "*/*", "Accept-Encoding": "identity"},
            # The certificate must be the host's, not the address's.
            extensions={"sni_hostname": host, "timeout": httpx.Timeout(IDLE_S).as_dict()},
        )
        # Neither proxies nor credentials of the environment, and no redirects.
        client = httpx.AsyncClient(verify=self._context, trust_env=False, follow_redirects=False)
        async with client:
            response = await client.send(request, stream=True)
            try:
                _check_answer(response, host, max_bytes)
                num_bytes = 0
                async for piece in response.aiter_raw():
                    num_bytes += len(piece)
                    if num_bytes > max_bytes:
                        raise MediaError(_too_much(host, max_bytes))
                    yield piece
            finally:
                await response.aclose()


def is_public(address: Address) -> bool:
    """Whether an address belongs to the public internet, and to no gateway into another network."""
    if isinstance(address, ipaddress.IPv6Address) and (
        address.is_site_local or any(address in carrier for carrier in _CARRIERS)
    ):
        return False
    return address.is_global and not (
        address.is_multicast
        or address.is_private
        or address.is_reserved
        or address.is_loopback
        or address.is_link_local
        or address.is_unspecified
    )


def _check_answer(response: httpx.Response, host: str, max_bytes: int) -> None:
    if response.is_redirect:
        raise MediaError(f"{host} answers with a redirect, which is not followed")
    if response.status_code != 200:
        raise MediaError(f"{host} answers with status {response.status_code}; expected 200")
    if response.headers.get("content-encoding", "identity") != "identity":
        raise MediaError(f"{host} sends the file compressed; expected it as it is")
    length = response.headers.get("content-length", "0")
    if length.isdecimal() and int(length) > max_bytes:
        raise MediaError(_too_much(host, max_bytes))


def _too_much(host: str, max_bytes: int) -> str:
    return f"the file of {host} has more than {max_bytes} bytes, all that are left for this request"


async def _resolve(host: str, port: int) -> list[str]:
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return [str(entry[4][0]) for entry in found]
