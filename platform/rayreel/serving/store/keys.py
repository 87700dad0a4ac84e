"""API keys: random, shown once, and at rest only as their hash."""

import hashlib
import secrets
import time

import sqlalchemy as sa

from rayreel.errors import SpecError
from rayreel.serving.store.base import Part
from rayreel.serving.store.database import KEYS_LOCK
from rayreel.serving.store.records import ApiKey
from rayreel.serving.store.tables import api_keys

_SHOWN = (api_keys.c.key_id, api_keys.c.name, api_keys.c.created_at, api_keys.c.revoked_at)
_LIVE = api_keys.c.revoked_at.is_(None)


class Keys(Part):
    """The store as whoever checks and gives out keys sees it."""

    def add_key(self, name: str) -> tuple[ApiKey, str]:
        """Make a key.

        Args:
            name: What a person calls it; no other key that is not revoked has it.

        Returns:
            The key and its secret, which cannot be had again.

        Raises:
            SpecError: If the name is blank or taken.
            StorageError: If the database does not answer.
        """
        if not name.strip():
            raise SpecError("the name of the API key is blank; expected one such as alice")
        secret = f"rr_{secrets.token_urlsafe(32)}"
        key = ApiKey(
            key_id=f"key_{secrets.token_hex(8)}",
            name=name,
            created_at=time.time(),
            revoked_at=None,
        )
        with self._database.writing(KEYS_LOCK) as connection:
            taken = sa.select(api_keys.c.key_id).where(api_keys.c.name == name, _LIVE)
            if connection.execute(taken).first():
                raise SpecError(
                    f"there is an API key {name!r}; expected another name, or revoke that one first"
                )
            row = {column.name: getattr(key, column.name) for column in _SHOWN}
            connection.execute(sa.insert(api_keys).values(**row, digest=_digest(secret)))
        return key, secret

    def find_key(self, secret: str) -> ApiKey | None:
        """The key of a secret, unless it is revoked.

        The time that it takes tells nothing of secrets, since it is their hashes that are compared.

        Raises:
            StorageError: If the database does not answer.
        """
        query = sa.select(*_SHOWN).where(api_keys.c.digest == _digest(secret), _LIVE)
        with self._database.reading() as connection:
            row = connection.execute(query).mappings().one_or_none()
        return None if row is None else ApiKey(**row)

    def keys(self) -> list[ApiKey]:
        """All keys, revoked ones too, oldest first.

        Raises:
            StorageError: If the database does not answer.
        """
        query = sa.select(*_SHOWN).order_by(api_keys.c.created_at, api_keys.c.key_id)
        with self._database.reading() as connection:
            return [ApiKey(**row) for row in connection.execute(query).mappings()]

    def revoke_key(self, name: str) -> bool:
        """Refuse a key from now on.

        Returns:
            Whether there was one of this name that was not revoked.

        Raises:
            StorageError: If the database does not answer.
        """
        live = sa.update(api_keys).where(api_keys.c.name == name, _LIVE)
        with self._database.writing() as connection:
            return connection.execute(live.values(revoked_at=time.time())).rowcount > 0


def _digest(secret: str) -> str:
    return hashlib.sha256(secret.encode("utf-8", "replace")).hexdigest()
