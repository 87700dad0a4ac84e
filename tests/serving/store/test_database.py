"""How the database is reached, brought up to date, and what happens while it is away."""

import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext

from rayreel.errors import SpecError, StorageError
from rayreel.serving.store import JobStore
from rayreel.serving.store.tables import metadata
from tests.postgres import PostgresServer
from tests.serving.store.jobs import (
    OUTPUT,
    current,
    done,
    go,
    new_job,
    output_of,
    python,
    running,
    submitted,
)

MIGRATE = """
import sys
from contextlib import closing
from rayreel.serving.store import JobStore

with closing(JobStore(sys.argv[1])) as store:
    print("ready", flush=True)
    sys.stdin.readline()
    store.migrate()
    print(store.totals().queued)
"""


@pytest.fixture
def engine(empty_url: str) -> Iterator[sa.Engine]:
    engine = sa.create_engine(empty_url)
    yield engine
    engine.dispose()


def test_migrations_end_at_the_tables_that_the_code_has(empty_url: str, engine: sa.Engine):
    with closing(JobStore(empty_url)) as store:
        store.migrate()
    with engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, metadata) == []


def test_the_comparison_of_tables_sees_a_difference(empty_url: str, engine: sa.Engine):
    with closing(JobStore(empty_url)) as store:
        store.migrate()
    with engine.begin() as connection:
        connection.execute(sa.text("DROP INDEX ix_jobs_queue"))
        connection.execute(sa.text("ALTER TABLE jobs ADD COLUMN more TEXT"))
    with engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert len(compare_metadata(context, metadata)) == 2


def test_a_second_migration_keeps_the_jobs(empty_url: str):
    with closing(JobStore(empty_url)) as store:
        store.migrate()
        job = submitted(store, "video_a")
        store.migrate()
        assert current(store, "video_a") == job


def test_jobs_of_the_first_version_are_kept(empty_url: str, engine: sa.Engine):
    with closing(JobStore(empty_url)) as store:
        store.migrate()
        jobs = [submitted(store, "video_a"), running(store, "video_b"), done(store, "video_c")]
        with engine.begin() as connection:
            for column in ("picture", "preview"):
                connection.execute(sa.text(f"ALTER TABLE jobs DROP COLUMN {column}"))
            connection.execute(sa.text("UPDATE alembic_version SET version_num = '0001'"))
        with engine.connect() as connection:
            context = MigrationContext.configure(connection)
            assert len(compare_metadata(context, metadata)) == 2
        store.migrate()
        assert [current(store, job.job_id) for job in jobs] == jobs
        assert [store.picture(job.job_id) for job in jobs] == [None] * 3
        store.progress("mine", ["video_b"], stage="s", step=1, steps=2, pictures={"video_b": b"x"})
        assert store.picture("video_b") == b"x"


def test_processes_and_threads_migrate_at_once(empty_url: str):
    others = [python(MIGRATE, empty_url) for _ in range(2)]
    with closing(JobStore(empty_url)) as store:
        threads = [threading.Thread(target=store.migrate) for _ in range(2)]
        go(*others)
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert [output_of(process) for process in others] == ["0\n", "0\n"]
        assert store.totals().queued == 0


def test_tables_of_a_newer_version_are_left_alone(empty_url: str, engine: sa.Engine):
    with closing(JobStore(empty_url)) as store:
        store.migrate()
        with engine.begin() as connection:
            connection.execute(sa.text("UPDATE alembic_version SET version_num = '9999'"))
        with pytest.raises(SpecError, match="install the newer rayreel"):
            store.migrate()


def test_a_database_without_tables_does_not_answer(empty_url: str):
    with closing(JobStore(empty_url)) as store:
        if empty_url.startswith("sqlite"):
            with pytest.raises(StorageError, match="unable to open database file"):
                store.totals()
        else:
            with pytest.raises(StorageError, match='relation "jobs" does not exist'):
                store.totals()


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("jobs.sqlite", "no SQLAlchemy URL"),
        ("", "no SQLAlchemy URL"),
        ("postgresql://me:hunter2@host:port/name", "no SQLAlchemy URL"),
        ("mysql://me:hunter2@host/name", "of kind mysql"),
        ("postgres://me:hunter2@host/name", "of kind postgres"),
        ("postgresql+asyncpg://me:hunter2@host/name", "of kind postgresql.asyncpg"),
        ("sqlite://", "no file"),
        ("sqlite:///:memory:", "no file"),
        ("sqlite:///file:jobs?mode=memory&uri=true", "no file"),
        ("postgresql://me:hunter2@host/name?colour=red", "options that libpq does not know"),
    ],
)
def test_a_wrong_url_says_what_was_expected(url: str, said: str):
    with pytest.raises(SpecError, match=said) as raised:
        JobStore(url)
    assert "hunter2" not in str(raised.value)
    assert raised.value.__cause__ is None


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://me:hunter2@127.0.0.1:1/name",
        "postgresql+psycopg://127.0.0.1:1/name?user=me&password=hunter2&connect_timeout=2",
    ],
)
def test_a_password_is_in_no_message(url: str):
    with closing(JobStore(url)) as store, pytest.raises(StorageError) as raised:
        store.submit(new_job("video_a", prompt="hunter2"), max_jobs=1, max_jobs_per_owner=1)
    assert "postgresql://127.0.0.1:1/name does not answer" in str(raised.value)
    error: BaseException | None = raised.value
    while error is not None:
        assert "hunter2" not in f"{error} {error!r}"
        error = error.__cause__ or error.__context__


def test_a_wrong_password_is_told_without_it(postgres_server: PostgresServer):
    url = postgres_server.url().replace(postgres_server.password, "hunter2")
    with (
        closing(JobStore(url)) as store,
        pytest.raises(StorageError, match="password authentication failed") as raised,
    ):
        store.migrate()
    assert "hunter2" not in str(raised.value)


def test_statements_are_not_shown_with_their_values(store: JobStore):
    submitted(store, "video_a")
    with pytest.raises(sa.exc.IntegrityError) as raised:
        store.submit(new_job("video_a", prompt="secret"), max_jobs=9, max_jobs_per_owner=9)
    assert "secret" not in str(raised.value)


def test_a_killed_server_is_told_and_all_goes_on_once_it_is_back(postgres_server: PostgresServer):
    with closing(JobStore(postgres_server.new_database())) as store:
        store.migrate()
        submitted(store, "video_a")
        running(store, "video_b")
        postgres_server.kill()
        try:
            start = time.monotonic()
            with pytest.raises(StorageError, match="does not answer"):
                store.queued(9)
            with pytest.raises(StorageError, match="does not answer"):
                store.submit(new_job("video_c"), max_jobs=9, max_jobs_per_owner=9)
            assert time.monotonic() - start < 10
        finally:
            postgres_server.start()
        assert [job.job_id for job in store.queued(9)] == ["video_a"]
        assert store.finish("mine", "video_b", OUTPUT, seconds={}, now=1.0, expires_at=None)
        submitted(store, "video_c")


def test_a_server_that_started_again_meanwhile_is_found_at_once(postgres_server: PostgresServer):
    with closing(JobStore(postgres_server.new_database())) as store:
        store.migrate()
        postgres_server.kill()
        postgres_server.start()
        submitted(store, "video_a")


def test_a_server_killed_under_load_loses_nothing_that_was_answered(
    postgres_server: PostgresServer,
):
    with closing(JobStore(postgres_server.new_database())) as store:
        store.migrate()
        accepted: set[str] = set()
        refused: list[StorageError] = []
        stop = threading.Event()

        def submit(thread: int) -> None:
            number = 0
            while not stop.is_set():
                number += 1
                job = new_job(f"video_{thread}_{number}")
                try:
                    store.submit(job, max_jobs=10**6, max_jobs_per_owner=10**6)
                except StorageError as error:
                    refused.append(error)
                    time.sleep(0.05)
                else:
                    accepted.add(job.job_id)

        threads = [threading.Thread(target=submit, args=(number,)) for number in range(3)]
        for thread in threads:
            thread.start()
        _wait_until(lambda: len(accepted) > 20)
        postgres_server.kill()
        _wait_until(lambda: bool(refused))
        postgres_server.start()
        before = len(accepted)
        _wait_until(lambda: len(accepted) > before + 5)
        stop.set()
        for thread in threads:
            thread.join()
        kept = {job.job_id for job in store.queued(10**6)}
    assert accepted <= kept


def _wait_until(true: object) -> None:
    assert callable(true)
    until = time.monotonic() + 60
    while not true():
        assert time.monotonic() < until
        time.sleep(0.02)


def test_a_file_that_another_process_holds_does_not_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("rayreel.serving.store.database.PATIENCE_S", 0.2)
    with closing(JobStore(f"sqlite:///{tmp_path}/jobs.sqlite")) as store:
        store.migrate()
        with closing(sqlite3.connect(tmp_path / "jobs.sqlite", isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            with pytest.raises(StorageError, match="database is locked"):
                submitted(store, "video_a")
            assert store.totals().queued == 0
            other.execute("ROLLBACK")
        submitted(store, "video_a")


def test_a_damaged_file_does_not_answer(tmp_path: Path):
    (tmp_path / "jobs.sqlite").write_bytes(b"no database" * 100)
    url = f"sqlite:///{tmp_path}/jobs.sqlite"
    with closing(JobStore(url)) as store, pytest.raises(StorageError, match="not a database"):
        store.migrate()


def test_a_folder_that_cannot_be_made_is_told(tmp_path: Path):
    (tmp_path / "file").write_bytes(b"")
    url = f"sqlite:///{tmp_path}/file/jobs.sqlite"
    with closing(JobStore(url)) as store, pytest.raises(StorageError, match="cannot make"):
        store.migrate()


def test_sqlite_keeps_what_it_answered_for_through_a_power_cut(tmp_path: Path):
    with closing(JobStore(f"sqlite:///{tmp_path}/jobs.sqlite")) as store:
        store.migrate()
        with store._database.reading() as connection:
            settings = [
                connection.exec_driver_sql(f"PRAGMA {name}").scalar_one()
                for name in ("journal_mode", "synchronous")
            ]
    assert settings == ["wal", 2]


def test_postgres_bounds_every_wait(postgres_url: str):
    names = ("statement_timeout", "idle_in_transaction_session_timeout", "search_path")
    url = f"{postgres_url}?options=-c%20search_path%3Dpublic"
    with closing(JobStore(url)) as store, store._database.reading() as connection:
        settings = [connection.exec_driver_sql(f"SHOW {name}").scalar_one() for name in names]
    assert settings == ["5s", "10s", "public"]
