"""A store over each database."""

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import psycopg
import pytest

from rayreel.serving.store import JobStore
from tests.postgres import PostgresServer


@pytest.fixture(scope="session")
def postgres_url(postgres_server: PostgresServer) -> str:
    """A database with tables."""
    url = postgres_server.new_database()
    with closing(JobStore(url)) as store:
        store.migrate()
    return url


@pytest.fixture(params=["sqlite", "postgres"])
def store_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A database with empty tables."""
    if request.param == "sqlite":
        file = f"sqlite:///{tmp_path}/folder/jobs.sqlite"
        with closing(JobStore(file)) as store:
            store.migrate()
        return file
    url: str = request.getfixturevalue("postgres_url")
    with psycopg.connect(url.replace("+psycopg", "")) as connection:
        connection.execute("TRUNCATE jobs, api_keys")
    return url


@pytest.fixture
def store(store_url: str) -> Iterator[JobStore]:
    """A store without jobs."""
    with closing(JobStore(store_url)) as store:
        yield store


@pytest.fixture(params=["sqlite", "postgres"])
def empty_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A database without tables."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/new/folder/jobs.sqlite"
    server: PostgresServer = request.getfixturevalue("postgres_server")
    return server.new_database()
