"""Properties of the source files as text, and of what is built from them."""

import importlib.metadata
import re
import subprocess
import tomllib

import pytest

MOST_LINES = 600


@pytest.fixture(scope="module")
def settings(repository):
    return tomllib.loads((repository / "pyproject.toml").read_text("utf-8"))


@pytest.fixture(scope="module")
def sources(repository):
    """Text of all source files by path."""
    folders = ("platform", "jobs", "tests")
    paths = [path for folder in folders for path in (repository / folder).rglob("*.py")]
    return {path.relative_to(repository): path.read_text("utf-8") for path in paths}


def test_no_file_is_too_long_to_read(sources):
    lengths = {path: text.count("\n") for path, text in sources.items()}
    assert {path: n for path, n in lengths.items() if n > MOST_LINES} == {}


def test_models_are_moved_by_their_callers(sources):
    call = re.compile(r"\.cuda\(")
    library = {path: text for path, text in sources.items() if path.parts[0] != "tests"}
    assert [path for path, text in library.items() if call.search(text)] == []


def test_nothing_is_left_to_be_done(sources):
    mark = re.compile(r"\b(TODO|FIXME|XXX)\b")
    others = {path: text for path, text in sources.items() if "guards" not in path.parts}
    assert [path for path, text in others.items() if mark.search(text)] == []


def test_the_version_is_the_project_s(settings):
    assert importlib.metadata.version("rayreel") == settings["project"]["version"]


def test_the_wheel_holds_the_package_with_all_its_files(settings, repository):
    wheel = settings["tool"]["hatch"]["build"]["targets"]["wheel"]
    assert wheel == {"packages": ["platform/rayreel"]}
    package = repository / "platform" / "rayreel"
    assert list(package.rglob("*.j2"))


def test_no_file_of_the_package_is_ignored_by_git(repository):
    # Git would not keep it, hatchling not build it, ruff not check it.
    if not (repository / ".git").exists():
        pytest.skip("not a git checkout")
    folders = [repository / "platform" / "rayreel", repository / "tests", repository / "jobs"]
    paths = [
        str(path)
        for folder in folders
        for path in folder.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    ]
    ignored = subprocess.run(
        ["git", "check-ignore", "--no-index", "--stdin"],
        cwd=repository,
        input="\n".join(paths),
        capture_output=True,
        text=True,
        check=False,
    )
    assert ignored.stdout == ""
