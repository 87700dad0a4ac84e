"""Log lines for people and for programs, with ids and without secrets."""

import json
import logging
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from datetime import datetime

import pytest

from rayreel.logs import LogSettings, log_context, log_settings, setup_logging

log = logging.getLogger("rayreel.test")


@pytest.fixture(autouse=True)
def _root_as_before():
    root = logging.getLogger()
    handlers, level = [*root.handlers], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)


def test_lines_for_people_end_in_the_ids_that_are_known(capsys):
    setup_logging("INFO")
    log.info("no ids")
    with log_context(run="r1"), log_context(items=["a", "b"]):
        log.info("took %d s", 3)
    first, second = capsys.readouterr().err.splitlines()
    assert first.endswith("INFO rayreel.test: no ids")
    assert second.endswith("INFO rayreel.test: took 3 s [run r1, item a, b]")


def test_lines_for_programs_are_objects(capsys):
    setup_logging("INFO", json=True)
    with log_context(run="r1", items=["a"]):
        log.warning("took %d s", 3, extra={"stage": "decode"})
    line = json.loads(capsys.readouterr().err)
    assert datetime.fromisoformat(line.pop("time")).tzinfo
    about = {"level": "WARNING", "logger": "rayreel.test", "message": "took 3 s"}
    assert line == {**about, "run": "r1", "items": ["a"], "stage": "decode"}


@pytest.mark.parametrize("as_json", [False, True])
def test_an_error_keeps_its_traceback_and_its_ids(capsys, as_json):
    setup_logging("INFO", json=as_json)
    with log_context(items=["a"]):
        try:
            int("broken")
        except ValueError:
            log.exception("failed")
    said = capsys.readouterr().err
    first = json.loads(said)["exc_info"] if as_json else said
    assert "Traceback" in first
    assert "ValueError: " in first
    assert '"items": ["a"]' in said if as_json else "failed [item a]\nTraceback" in said


def test_ids_end_with_their_context_and_do_not_reach_other_threads(capsys):
    setup_logging("INFO")
    with ThreadPoolExecutor(1) as pool:
        with log_context(run="r1"):
            pool.submit(log.info, "elsewhere").result()
            pool.submit(copy_context().run, log.info, "carried").result()
        log.info("after")
    elsewhere, carried, after = capsys.readouterr().err.splitlines()
    assert elsewhere.endswith("elsewhere")
    assert carried.endswith("carried [run r1]")
    assert after.endswith("after")


def test_what_is_below_the_level_is_not_written_and_a_second_setup_replaces_the_first(capsys):
    setup_logging("DEBUG", json=True)
    setup_logging("WARNING")
    log.info("low")
    log.warning("high")
    (line,) = capsys.readouterr().err.splitlines()
    assert line.endswith("WARNING rayreel.test: high")
    assert log_settings() == LogSettings("WARNING", json=False)


@pytest.mark.parametrize("as_json", [False, True])
@pytest.mark.parametrize(
    ("said", "left"),
    [
        ("key wJalrXUtnFEMI/K7MDENG", "key ***"),
        ("GET https://user:hunter2@host/a.png", "GET https://***@host/a.png"),
        ("GET https://host/a?x=1&X-Amz-Signature=5a7e&y=2", "GET https://host/a?x=1&***&y=2"),
        ("Authorization: Bearer abc.def", "Authorization: ***"),
        ("s3://bucket/runs/demo at 12:30:00", "s3://bucket/runs/demo at 12:30:00"),
    ],
)
def test_secrets_are_hidden(capsys, monkeypatch, said, left, as_json):
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wJalrXUtnFEMI/K7MDENG")
    setup_logging("INFO", json=as_json)
    log.info("%s", said)
    line = capsys.readouterr().err
    assert (json.loads(line)["message"] if as_json else line.rstrip().split("test: ")[1]) == left
