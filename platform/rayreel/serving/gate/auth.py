"""Who a request comes from, and whose jobs it may see."""

import hashlib
import hmac
import re
import secrets
import time
from base64 import urlsafe_b64encode
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from rayreel.data.storage import Storage
from rayreel.serving.jobs import Job

CACHE_S = 5.0
"""A revoked key may be good for this much longer."""

TOKEN_S = 3600.0
"""How long a signed address is good: as long as a page with a player may stay open."""

SECRET_NAME = "signing.key"

_KEY = re.compile(r"rr_[A-Za-z0-9_-]{43}")
_TOKEN = re.compile(r"([0-9]{1,12})\.([A-Za-z0-9_-]{43})")
_CACHED = 1000


class FoundKey(Protocol):
    """An API key without its secret."""

    @property
    def key_id(self) -> str:
        """What its jobs know it by."""

    @property
    def revoked_at(self) -> float | None:
        """When it was revoked, if it was."""


class Keys(Protocol):
    """Where API keys are looked up."""

    def find_key(self, secret: str) -> FoundKey | None:
        """The key that a client shows, if there is one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """Who a request comes from.

    Attributes:
        owner: Id of its API key; empty where none is needed, ``None`` for a signed address.
        token: Of a signed address, which is still to be checked against the job.
    """

    owner: str | None
    token: str | None = field(default=None, repr=False)


class Auth:
    """API keys, and signed addresses for players and event streams, which cannot send a key.

    Attributes:
        required: Whether requests need a key.
        any_host: Whether requests may call the service by any name. Without keys that is only safe
            where something in front of the service decides who may reach it: a web page could have
            its own name point to the loopback address, and use the service through its visitors.
    """

    def __init__(
        self,
        store: Keys,
        required: bool,
        *,
        secret: bytes,
        any_host: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.required = required
        self.any_host = any_host or required
        self._store = store
        self._secret = secret
        self._clock = clock
        self._known: dict[bytes, tuple[str, float]] = {}

    def owner(self, authorization: str | None) -> str | None:
        """Id of the key that an ``Authorization`` header shows; ``None`` if it shows none.

        Looks into the database, so it is for a thread. Only hashes of keys are kept in memory, and
        looked for by their hash, which tells no attacker how much of a guess was right.

        Raises:
            StorageError: If the database does not answer.
        """
        scheme, _, key = (authorization or "").partition(" ")
        key = key.strip(" ")
        # What cannot be a key costs no query.
        if scheme.lower() != "bearer" or not _KEY.fullmatch(key):
            return None
        digest, now = hashlib.sha256(key.encode()).digest(), self._clock()
        key_id, until = self._known.get(digest, ("", 0.0))
        if key_id and now < until:
            return key_id
        found = self._store.find_key(key)
        if found is None or found.revoked_at is not None:
            self._known.pop(digest, None)
            return None
        if len(self._known) >= _CACHED:
            self._known.clear()
        self._known[digest] = found.key_id, now + CACHE_S
        return found.key_id

    def sign(self, job: Job, *, now: float | None = None) -> str:
        """A token for ``?token=`` of a job's content, events and preview, good for ``TOKEN_S``.

        Args:
            job: That it is for, and for no other.
            now: Seconds since 1970.
        """
        expiry = int((time.time() if now is None else now) + TOKEN_S)
        return f"{expiry}.{self._signature(job, expiry)}"

    def verify(self, token: str, job: Job, *, now: float | None = None) -> bool:
        """Whether a token is one of a job, and still good."""
        found = _TOKEN.fullmatch(token)
        if found is None:
            return False
        expiry = int(found[1])
        genuine = hmac.compare_digest(found[2], self._signature(job, expiry))
        return genuine and (time.time() if now is None else now) < expiry

    def allows(self, caller: Caller, job: Job) -> bool:
        """Whether a caller may see a job: its own, or that of a signed address."""
        if caller.owner is not None:
            return caller.owner == job.owner
        return caller.token is not None and self.verify(caller.token, job)

    def _signature(self, job: Job, expiry: int) -> str:
        # Neither an id nor a number has a line feed in it.
        said = f"{job.job_id}\n{job.owner}\n{expiry}".encode()
        digest = hmac.digest(self._secret, said, "sha256")
        return urlsafe_b64encode(digest).rstrip(b"=").decode()


def signing_secret(storage: Storage) -> bytes:
    """The secret of signed addresses, which all parts of a service share; made when first asked.

    Args:
        storage: The service directory.

    Raises:
        StorageError: If it does not answer.
        OSError: If it cannot be written.
    """
    storage.create_bytes(SECRET_NAME, secrets.token_bytes(32))
    return storage.read_bytes(SECRET_NAME)
