"""API keys."""

import re

import pytest
import sqlalchemy as sa

from rayreel.errors import SpecError
from rayreel.serving.store import JobStore


def test_a_key_is_found_by_its_secret_alone(store: JobStore):
    key, secret = store.add_key("alice")
    other, _ = store.add_key("bob")
    assert re.fullmatch(r"rr_[A-Za-z0-9_-]{43}", secret)
    assert store.find_key(secret) == key
    assert store.keys() == [key, other]
    for wrong in ("", secret[:-1], secret + "x", key.key_id, "alice", "rr_"):
        assert store.find_key(wrong) is None


def test_secrets_are_not_in_the_database(store: JobStore, store_url: str):
    _, secret = store.add_key("alice")
    engine = sa.create_engine(store_url)
    with engine.connect() as connection:
        (row,) = connection.execute(sa.text("SELECT * FROM api_keys")).all()
    engine.dispose()
    assert "alice" in row
    assert not any(secret[3:] in str(value) for value in row)


def test_a_revoked_key_is_not_found(store: JobStore):
    _, secret = store.add_key("alice")
    _, kept = store.add_key("bob")
    assert store.revoke_key("alice")
    assert store.find_key(secret) is None
    assert store.find_key(kept) is not None
    listed = store.keys()
    assert [key.revoked_at is None for key in listed] == [False, True]
    assert not store.revoke_key("alice")
    assert not store.revoke_key("carol")


def test_a_name_is_free_again_once_its_key_is_revoked(store: JobStore):
    store.add_key("alice")
    with pytest.raises(SpecError, match="there is an API key 'alice'"):
        store.add_key("alice")
    store.revoke_key("alice")
    _, secret = store.add_key("alice")
    found = store.find_key(secret)
    assert found is not None
    assert found.name == "alice"


def test_a_key_has_a_name(store: JobStore):
    with pytest.raises(SpecError, match="blank"):
        store.add_key(" ")
