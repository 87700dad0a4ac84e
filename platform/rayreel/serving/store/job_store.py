"""The store as a whole."""

from rayreel.serving.store.clients import Clients
from rayreel.serving.store.database import Database
from rayreel.serving.store.keys import Keys
from rayreel.serving.store.work import Work


class JobStore(Clients, Work, Keys):
    """Jobs and API keys in SQLite or PostgreSQL.

    Synchronous; its threads share it, and other processes have their own over the same database.
    A database that does not answer is a ``StorageError`` after a few seconds, from every method;
    once it answers again, so do they.
    """

    def __init__(self, url: str, *, retention_s: float | None = None) -> None:
        """Nothing is connected yet.

        Args:
            url: SQLAlchemy URL, of SQLite or of PostgreSQL by psycopg.
            retention_s: After how long jobs expire that end where nobody says when: those that are
                cancelled in the queue, or whose dispatcher is lost. Never by default.

        Raises:
            SpecError: If the URL is another.
        """
        self._database = Database(url)
        self._retention_s = retention_s

    def migrate(self) -> None:
        """Create the tables, or bring them up to date; several processes may do so at once.

        Raises:
            SpecError: If the tables are those of a newer version of this package.
            StorageError: If the database does not answer, or its folder cannot be made.
        """
        self._database.migrate()

    def close(self) -> None:
        """Close the connections."""
        self._database.close()
