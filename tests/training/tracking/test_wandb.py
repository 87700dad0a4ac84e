"""Weights & Biases with the real package, offline: what is recorded is read back."""

import json
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from rayreel.data.storage import Storage
from rayreel.training.tracking import Trackers, trackers_for
from tests.training.tracking.lines import line, spec

records = pytest.importorskip("wandb.proto.wandb_internal_pb2")

_BLOCK = 32768


@pytest.fixture
def wandb_spec(tmp_path, monkeypatch) -> Any:
    # Its process of its own would look around the machine.
    monkeypatch.setenv("WANDB_DISABLE_GIT", "true")
    return spec(tmp_path / "foxes", wandb={"mode": "offline", "project": "films", "tags": ["a"]})


def log_steps(wandb_spec, first: int, last: int) -> Trackers:
    trackers = trackers_for(wandb_spec, Storage(wandb_spec.output), first - 1)
    for step in range(first, last + 1):
        trackers.log(line(step))
    return trackers


def test_numbers_and_spec_are_recorded(wandb_spec):
    log_steps(wandb_spec, 1, 3).close("finished")
    rows = history(wandb_spec)
    assert [(row["_step"], row["train/loss"]) for row in rows] == [(1, 1), (2, 1 / 2), (3, 1 / 3)]
    assert rows[0]["sigma/0.25-0.50"] == 1
    (run,) = [record.run for record in recorded(wandb_spec) if record.HasField("run")]
    assert (run.project, run.display_name, list(run.tags)) == ("films", "foxes", ["a"])
    assert "optimization" in {item.key for item in run.config.update}


def test_run_that_goes_on_is_the_same_run_without_doubled_steps(wandb_spec):
    log_steps(wandb_spec, 1, 4).close("failed")
    log_steps(wandb_spec, 3, 6).close("finished")
    assert [row["_step"] for row in history(wandb_spec)] == [1, 2, 3, 4, 5, 6]
    ids = {record.run.run_id for record in recorded(wandb_spec) if record.HasField("run")}
    assert len(ids) == 1


def test_clips_are_shown_at_their_step_though_others_follow(wandb_spec, tmp_path):
    trackers = log_steps(wandb_spec, 1, 3)
    clip = tmp_path / "fox.mp4"
    clip.write_bytes(b"a video")
    trackers.clips(2, {"fox": clip})
    trackers.log(line(4))
    trackers.close("finished")
    (row,) = [row for row in history(wandb_spec) if "validation/fox/path" in row]
    assert row["validation/step"] == 2
    media = Path(wandb_spec.output).glob(f"wandb/offline-*/files/{row['validation/fox/path']}")
    assert [file.read_bytes() for file in media] == [b"a video"]


def test_clips_are_kept_here_if_they_are_not_wanted(wandb_spec, tmp_path):
    quiet = spec(wandb_spec.output, wandb={"mode": "offline", "clips": False})
    trackers = log_steps(quiet, 1, 1)
    clip = tmp_path / "fox.mp4"
    clip.write_bytes(b"a video")
    trackers.clips(1, {"fox": clip})
    trackers.close("finished")
    assert not [row for row in history(quiet) if "validation/step" in row]


def history(wandb_spec) -> list[dict[str, Any]]:
    """Rows of the run, in the order in which they would be sent."""
    rows = [record.history for record in recorded(wandb_spec) if record.HasField("history")]
    return [
        {item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in row.item}
        for row in rows
    ]


def recorded(wandb_spec) -> list[Any]:
    files = sorted(Path(wandb_spec.output).glob("wandb/offline-run-*/*.wandb"))
    assert files
    return [
        records.Record.FromString(data) for file in files for data in _records(file.read_bytes())
    ]


def _records(data: bytes) -> Iterator[bytes]:
    """LevelDB's log: blocks of records, each a whole or the first, middle or last of its pieces."""
    place, pieces = 7, b""
    while place + 7 <= len(data):
        if _BLOCK - place % _BLOCK < 7:
            place += _BLOCK - place % _BLOCK
            continue
        _, length, kind = struct.unpack_from("<IHB", data, place)
        pieces += data[place + 7 : place + 7 + length]
        place += 7 + length
        if kind in {1, 4}:
            yield pieces
            pieces = b""
