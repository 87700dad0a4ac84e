"""All trackers of a run as one, and what is checked before there is any work."""

import pytest

from rayreel.data.storage import Storage
from rayreel.errors import SpecError
from rayreel.training.tracking import Trackers, check_tracking, read_metrics, trackers_for
from rayreel.training.tracking import trackers as module
from tests.training.tracking.lines import line, spec


class Told:
    """A tracker that writes down what it is told."""

    def __init__(self, *, fails: bool = False) -> None:
        self.calls: list[tuple[object, ...]] = []
        self.fails = fails

    def log(self, line):
        self.calls.append(("log", line["step"]))

    def clips(self, step, files):
        self.calls.append(("clips", step, files))

    def cut(self, step):
        self.calls.append(("cut", step))

    def close(self, status):
        self.calls.append(("close", status))
        if self.fails:
            raise OSError("disk is full")


def test_all_are_told_everything():
    both = [Told(), Told()]
    with Trackers(both) as trackers:
        trackers.log(line(1))
        trackers.clips(1, {})
        trackers.cut(1)
    wanted: list[object] = [("log", 1), ("clips", 1, {}), ("cut", 1), ("close", "finished")]
    assert [one.calls for one in both] == [wanted, wanted]


@pytest.mark.parametrize(
    ("error", "status"), [(ValueError, "failed"), (KeyboardInterrupt, "stopped")]
)
def test_they_are_told_how_a_run_ended(error, status):
    told = Told()
    with pytest.raises(error), Trackers([told]):
        raise error
    assert told.calls == [("close", status)]


def test_one_that_cannot_be_closed_does_not_keep_others_open():
    told = [Told(), Told(fails=True), Told()]
    with pytest.raises(OSError, match="disk is full"):
        Trackers(told).close("finished")
    assert all(one.calls for one in told)


def test_run_directory_has_metrics_and_tensorboard(tmp_path):
    with trackers_for(spec(tmp_path), Storage(tmp_path), 0) as trackers:
        trackers.log(line(1))
    assert read_metrics(Storage(tmp_path)) == [line(1)]
    assert len(Storage(tmp_path).names("tensorboard")) == 1


@pytest.mark.parametrize("extra", ["wandb", "mlflow"])
def test_missing_package_is_an_error_that_names_the_extra(tmp_path, monkeypatch, extra):
    monkeypatch.setattr(module, "find_spec", lambda _: None)
    with pytest.raises(SpecError, match=rf"pip install 'rayreel\[{extra}\]'"):
        check_tracking(spec(tmp_path, **{extra: {}}))


def test_online_run_without_key_is_an_error(tmp_path, monkeypatch):
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    monkeypatch.setenv("WANDB_CONFIG_DIR", str(tmp_path))
    with pytest.raises(SpecError, match="set WANDB_API_KEY"):
        check_tracking(spec(tmp_path, wandb={}))
    monkeypatch.setenv("WANDB_API_KEY", "0123456789" * 4)
    check_tracking(spec(tmp_path, wandb={}))


def test_offline_run_needs_a_disk(tmp_path):
    check_tracking(spec(tmp_path, wandb={"mode": "offline"}))
    with pytest.raises(SpecError, match="offline records on disk, and memory://runs/a is not"):
        check_tracking(spec("memory://runs/a", wandb={"mode": "offline"}))


def test_nothing_is_asked_of_a_spec_without_servers(tmp_path, monkeypatch):
    monkeypatch.delattr(module, "find_spec")
    check_tracking(spec(tmp_path))
