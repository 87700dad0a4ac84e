"""A database behind a URL: how it is reached, changed by one at a time, and brought up to date."""

import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

import sqlalchemy as sa
from alembic import command
from alembic.config import Config
from alembic.util import CommandError
from sqlalchemy import event, exc
from sqlalchemy.engine import URL, make_url

from rayreel.errors import SpecError, StorageError

PATIENCE_S: Final = 5
_CONNECT_S: Final = 3
_MIGRATION_S: Final = 60

# Names of locks in PostgreSQL, which are numbers; random, as a database may be shared.
SUBMIT_LOCK: Final = 7_301_965_442_118_073
KEYS_LOCK: Final = 7_301_965_442_118_074
_MIGRATION_LOCK: Final = 7_301_965_442_118_075

_EXPECTED = (
    "expected sqlite:///FOLDER/jobs.sqlite or postgresql+psycopg://USER:PASSWORD@HOST:PORT/NAME"
)
_DRIVERS = {
    "sqlite": "sqlite",
    "sqlite+pysqlite": "sqlite",
    "postgresql": "postgresql+psycopg",
    "postgresql+psycopg": "postgresql+psycopg",
}

# Of PostgreSQL: not migrated yet, and a server that has become a standby.
_UNREADY = ("42P01", "25006")

# Alembic's context is one for the process.
_migrating = threading.Lock()


class Database:
    """Connections of one process, shared by its threads."""

    def __init__(self, url: str) -> None:
        """Check the URL; nothing is connected yet.

        Args:
            url: SQLAlchemy URL, of SQLite or of PostgreSQL by psycopg.

        Raises:
            SpecError: If it is another; the message does not show it, as it may hold a password.
        """
        self._url = _checked(url)
        # Without the user, the password and options.
        self.name = URL.create(
            self._url.get_backend_name(),
            host=self._url.host,
            port=self._url.port,
            database=self._url.database,
        ).render_as_string()
        self.is_sqlite = self._url.get_backend_name() == "sqlite"
        pool: dict[str, Any] = {"pool_size": 5, "max_overflow": 15, "pool_timeout": PATIENCE_S}
        if self.is_sqlite:
            arguments: dict[str, Any] = {"timeout": PATIENCE_S, "check_same_thread": False}
        else:
            arguments = _psycopg_arguments(self._url)
            pool["pool_pre_ping"] = True
        self._engine = sa.create_engine(
            self._url, connect_args=arguments, hide_parameters=True, **pool
        )
        if self.is_sqlite:
            event.listen(self._engine, "connect", _set_up_sqlite)
            event.listen(self._engine, "begin", _begin_sqlite)

    @contextmanager
    def reading(self) -> Iterator[sa.Connection]:
        """A transaction that changes nothing.

        Raises:
            StorageError: If the database does not answer.
        """
        with self._answering(), self._engine.begin() as connection:
            yield connection

    @contextmanager
    def writing(self, lock: int | None = None) -> Iterator[sa.Connection]:
        """A transaction, committed at the end unless something is raised.

        Args:
            lock: Names what no other transaction does at the same time. SQLite has one writer at
                a time in any case.

        Raises:
            StorageError: If the database does not answer. Whether the transaction is committed is
                unknown if that happens at its end.
        """
        with (
            self._answering(),
            self._engine.connect().execution_options(rayreel_writes=True) as connection,
            connection.begin(),
        ):
            if lock is not None and not self.is_sqlite:
                connection.execute(sa.select(sa.func.pg_advisory_xact_lock(lock)))
            yield connection

    def migrate(self) -> None:
        """Create the tables, or bring them up to date; others may do so at the same time.

        Raises:
            SpecError: If the tables are those of a newer version of this package.
            StorageError: If the database does not answer, or its folder cannot be made.
        """
        if self.is_sqlite:
            folder = Path(self._url.database or "").parent
            try:
                folder.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise StorageError(f"cannot make {folder}, the folder of the jobs") from error
        with _migrating, self.writing() as connection:
            if not self.is_sqlite:
                # As long as another one may take for it.
                connection.execute(sa.text(f"SET LOCAL statement_timeout = '{_MIGRATION_S}s'"))
                connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_MIGRATION_LOCK)))
            config = Config(attributes={"connection": connection})
            scripts = str(Path(__file__).with_name("migrations"))
            config.set_main_option("script_location", scripts.replace("%", "%%"))
            try:
                command.upgrade(config, "head")
            except CommandError as error:
                raise SpecError(
                    f"{self.name} holds tables that this version does not know ({error}); expected "
                    "those of this version or an older one; install the newer rayreel"
                ) from error

    def close(self) -> None:
        """Close the connections; those in use close when they are returned."""
        self._engine.dispose()

    @contextmanager
    def _answering(self) -> Iterator[None]:
        try:
            yield
        except exc.TimeoutError as error:
            raise StorageError(
                f"{self.name}: all connections of this process are busy for {PATIENCE_S} s"
            ) from error
        except exc.DBAPIError as error:
            if not _is_absence(error):
                raise
            why = " ".join(str(error.orig).split())
            raise StorageError(f"{self.name} does not answer: {why}") from error


def _checked(url: str) -> URL:
    try:
        found = make_url(url)
    except (exc.ArgumentError, ValueError):
        # Not chained: the error shows the URL.
        raise SpecError(f"database is no SQLAlchemy URL; {_EXPECTED}") from None
    driver = _DRIVERS.get(found.drivername)
    if driver is None:
        raise SpecError(f"database is of kind {found.drivername}; {_EXPECTED}")
    if driver == "sqlite":
        path = found.database or ":memory:"
        if path.startswith((":memory:", "file:")):
            raise SpecError(
                f"database {found.drivername}:///{found.database or ''} is no file that several "
                f"processes can open; {_EXPECTED}"
            )
    elif find_spec("psycopg") is None:
        raise SpecError(
            "database is a PostgreSQL, and psycopg is not installed; expected "
            "pip install 'rayreel[postgres]'"
        )
    return found.set(drivername=driver)


def _psycopg_arguments(url: URL) -> dict[str, Any]:
    """What bounds every wait; what the URL says goes first."""
    import psycopg  # noqa: PLC0415 - an extra

    settings = {
        "statement_timeout": f"{PATIENCE_S}s",
        # A process that stops in the middle must not hold a lock.
        "idle_in_transaction_session_timeout": f"{2 * PATIENCE_S}s",
    }
    options = " ".join(f"-c {name}={value}" for name, value in settings.items())
    given = url.query.get("options", "")
    ours: dict[str, Any] = {
        "application_name": "rayreel",
        "connect_timeout": _CONNECT_S,
        "keepalives_idle": PATIENCE_S,
        "keepalives_interval": 2,
        "keepalives_count": 3,
        "tcp_user_timeout": 1000 * PATIENCE_S,
    }
    arguments = {name: value for name, value in ours.items() if name not in url.query}
    arguments["options"] = f"{options} {given if isinstance(given, str) else ' '.join(given)}"
    try:
        psycopg.conninfo.make_conninfo("", **dict.fromkeys(url.query, "0"))
    except psycopg.ProgrammingError as error:
        raise SpecError(f"database has options that libpq does not know: {error}") from None
    return arguments


def _is_absence(error: exc.DBAPIError) -> bool:
    """Whether the database is at fault, not the statement."""
    if isinstance(error, exc.OperationalError | exc.InterfaceError) or error.connection_invalidated:
        return True
    # SQLite says so of a damaged file.
    damaged = type(error) is exc.DatabaseError
    return damaged or getattr(error.orig, "sqlstate", None) in _UNREADY


def _set_up_sqlite(connection: sqlite3.Connection, _record: object) -> None:
    # The driver's own transactions begin with the first write only: two that read first could
    # both never write.
    connection.isolation_level = None
    until = time.monotonic() + PATIENCE_S
    while connection.execute("PRAGMA journal_mode").fetchone()[0] != "wal":
        try:
            connection.execute("PRAGMA journal_mode=WAL")
        except sqlite3.OperationalError:
            # The switch does not wait for others, as all else does.
            if time.monotonic() > until:
                raise
            time.sleep(0.02)
    connection.execute("PRAGMA synchronous=FULL")


def _begin_sqlite(connection: sa.Connection) -> None:
    writes = connection.get_execution_options().get("rayreel_writes", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")
