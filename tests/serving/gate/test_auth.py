"""Keys and signed addresses."""

from dataclasses import replace

import pytest

from rayreel.data.storage import Storage
from rayreel.errors import StorageError
from rayreel.serving.gate import Auth, Caller, signing_secret
from rayreel.serving.gate.auth import CACHE_S, TOKEN_S
from rayreel.serving.store import JobStore
from tests.serving.gate.jobs import NoKeys, a_job

SECRET = b"s" * 32


class Counting:
    """A store of keys that counts its queries."""

    def __init__(self, store: JobStore) -> None:
        self.store, self.queries = store, 0

    def find_key(self, secret):
        self.queries += 1
        return self.store.find_key(secret)


@pytest.fixture
def store(tmp_path):
    store = JobStore(f"sqlite:///{tmp_path}/jobs.sqlite")
    store.migrate()
    yield store
    store.close()


def test_key_is_told_by_its_secret(store):
    key, secret = store.add_key("alice")
    auth = Auth(store, True, secret=SECRET)
    assert auth.owner(f"Bearer {secret}") == key.key_id
    assert auth.owner(f"bearer  {secret}") == key.key_id


@pytest.mark.parametrize(
    "shown",
    [None, "", "Bearer", "Bearer ", "Basic {}", "{}", "Bearer {}x", "Bearer x{}", "Bearer {} {}"],
)
def test_anything_else_is_nobody(store, shown):
    _, secret = store.add_key("alice")
    counting = Counting(store)
    auth = Auth(counting, True, secret=SECRET)
    assert auth.owner(shown and shown.format(secret, secret)) is None
    assert counting.queries == 0


def test_revoked_key_is_refused_within_seconds(store):
    key, secret = store.add_key("alice")
    now = [100.0]
    auth = Auth(store, True, secret=SECRET, clock=lambda: now[0])
    assert auth.owner(f"Bearer {secret}") == key.key_id
    store.revoke_key("alice")
    now[0] += CACHE_S
    assert auth.owner(f"Bearer {secret}") is None


def test_good_keys_are_remembered_and_wrong_ones_are_not(store):
    _, secret = store.add_key("alice")
    counting = Counting(store)
    auth = Auth(counting, True, secret=SECRET)
    for _ in range(3):
        auth.owner(f"Bearer {secret}")
    assert counting.queries == 1
    wrong = "rr_" + "x" * 43
    assert [auth.owner(f"Bearer {wrong}") for _ in range(3)] == [None] * 3
    assert counting.queries == 4


def test_no_key_is_kept_in_memory(store):
    _, secret = store.add_key("alice")
    auth = Auth(store, True, secret=SECRET)
    auth.owner(f"Bearer {secret}")
    assert secret not in repr(vars(auth))


def test_a_database_that_does_not_answer_is_no_wrong_key(store):
    class Down:
        def find_key(self, _):
            raise StorageError("gone")

    with pytest.raises(StorageError):
        Auth(Down(), True, secret=SECRET).owner("Bearer rr_" + "x" * 43)


def test_signed_address_is_good_for_its_job_until_it_expires():
    auth, job = Auth(NoKeys(), True, secret=SECRET), a_job()
    token = auth.sign(job, now=1000.0)
    assert auth.verify(token, job, now=1000.0 + TOKEN_S - 1)
    assert not auth.verify(token, job, now=1000.0 + TOKEN_S)


@pytest.mark.parametrize("other", [{"job_id": "video_" + "b" * 32}, {"owner": "key_2"}])
def test_signed_address_is_good_for_no_other_job(other):
    auth = Auth(NoKeys(), True, secret=SECRET)
    token = auth.sign(a_job(), now=1000.0)
    assert not auth.verify(token, replace(a_job(), **other), now=1000.0)


def test_token_cannot_be_made_or_stretched_without_the_secret():
    auth, job = Auth(NoKeys(), True, secret=SECRET), a_job()
    expiry, _, signature = auth.sign(job, now=1000.0).partition(".")
    foreign = Auth(NoKeys(), True, secret=b"t" * 32).sign(job, now=1000.0)
    for wrong in (f"{int(expiry) + 1}.{signature}", f"{expiry}.", f"{expiry}", "", "é.x", foreign):
        assert not auth.verify(wrong, job, now=1000.0)


def test_caller_may_see_its_own_jobs_only():
    auth, job = Auth(NoKeys(), True, secret=SECRET), a_job(owner="key_1")
    assert auth.allows(Caller(owner="key_1"), job)
    assert not auth.allows(Caller(owner="key_2"), job)
    assert not auth.allows(Caller(owner=""), job)
    assert not auth.allows(Caller(owner=None), job)
    assert auth.allows(Caller(owner=None, token=auth.sign(job)), job)
    assert not auth.allows(Caller(owner="key_2", token=auth.sign(job)), job)


def test_parts_of_a_service_share_one_secret(tmp_path):
    first, second = signing_secret(Storage(tmp_path)), signing_secret(Storage(tmp_path))
    assert first == second
    assert len(first) == 32
