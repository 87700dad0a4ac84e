"""A store to dispatch from."""

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from rayreel.serving.store import JobStore


@pytest.fixture
def store(tmp_path: Path) -> Iterator[JobStore]:
    """A store without jobs."""
    with closing(JobStore(f"sqlite:///{tmp_path}/jobs.sqlite")) as store:
        store.migrate()
        yield store
