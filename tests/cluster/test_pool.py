"""Pools of actors are no larger than their work."""

from pathlib import Path

import pytest

from rayreel.cluster.pool import Pool
from tests.cluster.fakes import Counting


@pytest.mark.parametrize(
    ("batches", "size"), [(0, (1, 1)), (1, (1, 1)), (3, (2, 3)), (5, (2, 5)), (9, (2, 5))]
)
def test_actors_that_would_have_nothing_to_do_are_left_out(batches, size):
    stages = (Counting(Path("notes")),)
    pool = Pool(stages=stages, replicas=2, max_replicas=5, batch_size=4, cpus=1, gpus=0.5)
    found = pool.for_batches(batches)
    assert (found.replicas, found.max_replicas) == size
    assert (found.stages, found.batch_size, found.cpus, found.gpus) == (stages, 4, 1, 0.5)
