import threading
from functools import partial

import pytest
import torch

from rayreel.data.storage import Storage
from rayreel.errors import CheckpointError, StorageError
from rayreel.training.checkpoints import Checkpoints
from rayreel.training.group import Group, joined
from rayreel.training.order import Position
from tests.training.processes import in_two_processes
from tests.training.stepping import begin, step, whole

ALONE = Group(0, 1, torch.device("cpu"))
TARGETS = ["attn1.to_q", "audio_attn1.to_v"]
FIELDS = {
    "lora": {"targets": TARGETS},
    "optimization": {"learning_rate": 0.01, "ema": 0.5},
}
STEPS = [[1, 2], [3, 4], [2, 5], [6, 1]]


def _train(uri, *, save_at=(), until=4, keep_last=0, fields=None):
    """Go on from the last checkpoint, if any; all tensors afterwards."""
    with joined("cpu") as group:
        run = begin(group, **(fields or FIELDS))
        checkpoints = Checkpoints(Storage(uri), group, keep_last)
        if checkpoints.latest() is not None:
            checkpoints.load(run.state)
        for samples in STEPS[run.state.step : until]:
            step(run, samples)
            if run.state.step in save_at:
                checkpoints.save(run.state)
        checkpoints.finish()
        return {name: whole(one).numpy() for name, one in run.state.tensors().items()}


def _told(name, difference):
    return f"{name}: {difference}"


def _equal(ones, others, **tolerances):
    assert ones.keys() == others.keys()
    for name, one in ones.items():
        torch.testing.assert_close(
            torch.from_numpy(others[name]),
            torch.from_numpy(one),
            msg=partial(_told, name),
            **tolerances,
        )


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    """What four steps without any checkpoint come to."""
    return _train(tmp_path_factory.mktemp("whole"))


@pytest.fixture
def run():
    """A run that has not begun."""
    return begin(ALONE, **FIELDS)


def _on(storage, keep_last=0):
    return Checkpoints(Storage(storage), ALONE, keep_last)


def _names(folder):
    return sorted(path.name for path in (folder / "checkpoints").iterdir())


def test_one_process_goes_on_to_the_bit(tmp_path, uninterrupted):
    _train(tmp_path, save_at=[2], until=2)
    _equal(_train(tmp_path), uninterrupted, rtol=0, atol=0)


@pytest.mark.parametrize(("first", "sharding"), [(1, "full"), (2, "full"), (2, "replicate")])
def test_another_number_of_processes_goes_on(tmp_path, uninterrupted, first, sharding):
    fields = {**FIELDS, "acceleration": {"sharding": sharding}}
    if first == 1:
        _train(tmp_path, save_at=[2], until=2)
        found = in_two_processes(_resume, tmp_path, fields)
    else:
        in_two_processes(_begin, tmp_path, fields)
        found = [_train(tmp_path, fields=fields)]
    for tensors in found:
        _equal(tensors, uninterrupted, rtol=1e-3, atol=1e-5)


def _begin(uri, fields):
    _train(uri, save_at=[1, 2], until=2, keep_last=1, fields=fields)


def _resume(uri, fields):
    return _train(uri, save_at=[3, 4], keep_last=1, fields=fields)


def test_an_object_store_holds_checkpoints_as_well(s3_server, run):
    uri = f"{s3_server.url}/training"
    checkpoints = _on(uri, keep_last=1)
    for samples in STEPS[:2]:
        step(run, samples)
        checkpoints.save(run.state)
    checkpoints.finish()
    # Somebody has died here.
    Storage(uri).write_bytes("checkpoints/step-00000003/__0_0.distcp", b"half")
    assert _on(uri).latest() == 2
    gone = ("step-00000001/.metadata", "step-00000001/__0_0.distcp", "step-00000003/__0_0.distcp")
    assert not any(Storage(uri).exists(f"checkpoints/{name}") for name in gone)
    other = begin(ALONE, **FIELDS)
    _on(uri).load(other.state)
    assert (other.state.step, other.state.position) == (2, Position(1, 2))
    _equal(_numbers(other), _numbers(run), rtol=0, atol=0)


def _numbers(run):
    return {name: whole(one).numpy() for name, one in run.state.tensors().items()}


def test_there_may_be_no_checkpoint(tmp_path, run):
    assert _on(tmp_path).latest() is None
    with pytest.raises(CheckpointError, match=r"no checkpoint in .*checkpoints to go on from"):
        _on(tmp_path).load(run.state)


def test_a_checkpoint_that_was_never_finished_is_removed(tmp_path, run):
    checkpoints = _on(tmp_path)
    for samples in STEPS[:2]:
        step(run, samples)
        checkpoints.save(run.state)
    checkpoints.finish()
    (tmp_path / "checkpoints/step-00000002/checkpoint.json").unlink()
    assert _on(tmp_path).latest() == 1
    assert _names(tmp_path) == ["step-00000001"]


@pytest.mark.parametrize(("keep_last", "kept"), [(0, [1, 2, 3]), (1, [3]), (2, [2, 3])])
def test_the_last_checkpoints_are_kept(tmp_path, run, keep_last, kept):
    checkpoints = _on(tmp_path, keep_last)
    for samples in STEPS[:3]:
        step(run, samples)
        checkpoints.save(run.state)
    # The end of a run may fall on the interval.
    checkpoints.save(run.state)
    checkpoints.finish()
    assert _names(tmp_path) == [f"step-0000000{number}" for number in kept]
    assert _on(tmp_path, keep_last).latest() == 3


def test_steps_after_saving_do_not_change_what_is_saved(tmp_path, run, monkeypatch):
    gate, write = threading.Event(), Storage.local_staging

    def held(self, *arguments, **named):
        gate.wait()
        return write(self, *arguments, **named)

    monkeypatch.setattr(Storage, "local_staging", held)
    checkpoints = _on(tmp_path)
    step(run, STEPS[0])
    saved = _numbers(run)
    checkpoints.save(run.state)
    step(run, STEPS[1])
    assert checkpoints.poll() is None
    gate.set()
    assert checkpoints.finish() == 1
    other = begin(ALONE, **FIELDS)
    _on(tmp_path).load(other.state)
    _equal(_numbers(other), saved, rtol=0, atol=0)


def test_a_write_that_fails_is_told(tmp_path, run):
    (tmp_path / "checkpoints").write_text("in the way")
    checkpoints = _on(tmp_path)
    step(run, STEPS[0])
    checkpoints.save(run.state)
    with pytest.raises(StorageError, match="checkpoint of step 1 cannot be written"):
        checkpoints.finish()


def test_another_adapter_cannot_go_on(tmp_path, run):
    checkpoints = _on(tmp_path)
    step(run, STEPS[0])
    checkpoints.save(run.state)
    checkpoints.finish()
    other = begin(ALONE, lora={"targets": TARGETS, "rank": 4})
    with pytest.raises(CheckpointError, match=r"ema/.* is not expected; and \d+ more"):
        _on(tmp_path).load(other.state)


def test_what_a_run_has_not_written_is_refused(tmp_path, run):
    checkpoints = _on(tmp_path)
    step(run, STEPS[0])
    checkpoints.save(run.state)
    checkpoints.finish()
    (tmp_path / "checkpoints/step-00000001/checkpoint.json").write_text("{}")
    with pytest.raises(CheckpointError, match=r"checkpoint.json is not what a run has written"):
        _on(tmp_path).load(run.state)
