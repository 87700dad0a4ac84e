"""What tests of the service share."""

from collections.abc import Iterator

import pytest

from tests.postgres import PostgresServer


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[PostgresServer]:
    """One PostgreSQL for the whole run; who kills it starts it again."""
    server = PostgresServer()
    try:
        server.start()
        yield server
    finally:
        server.stop()
