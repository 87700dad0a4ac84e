"""Commands and flags are the listed ones, and the documents use no others."""

import ast
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
from typer.core import TyperGroup
from typer.main import get_command

from rayreel.cli import app

COMMANDS = {
    "render": {
        *("--output", "-o", "--set", "--model", "--retry", "--error-budget", "--dry-run"),
        "--help",
    },
    "plan": {
        *("--output", "-o", "--set", "--model", "--measure", "--no-measure", "--costs"),
        "--help",
    },
    "submit": {
        *("--output", "-o", "--job", "--set", "--model", "--retry", "--error-budget"),
        *("--address", "--working-dir", "--detach", "--help"),
    },
    "attach": {"--address", "--help"},
    "stop": {"--address", "--help"},
    "view": {"--port", "--help"},
    "encode": {
        *("--output", "-o", "--set", "--model", "--retry", "--error-budget", "--dry-run"),
        "--help",
    },
    "explain": {"--output", "-o", "--set", "--model", "--help"},
    "export": {"--format", "--help"},
    "import": {"--output", "-o", "--format", "--help"},
    "train": {"--output", "-o", "--set", "--model", "--dry-run", "--help"},
    "convert": {"--output", "-o", "--dataset", "--help"},
    "report": {"--help"},
    "publish": {"--name", "--private", "--help"},
    "serve": {
        *("--output", "-o", "--set", "--model", "--host", "--port", "--dry-run", "--help"),
    },
    **{f"keys {name}": {"--spec", "--database", "--help"} for name in ("add", "list", "revoke")},
    "loadtest": {"--set", "--output", "-o", "--allow-remote", "--help"},
    "tiny": {"--generation", "--help"},
    "assemble": {"--output", "-o", "--seed", "--help"},
    "pretrain": {"--set", "--output", "-o", "--help"},
    "eval": {"--output", "-o", "--set", "--model", "--retry", "--clips", "--help"},
    "world": {
        *("--output", "-o", "--count", "-n", "--seed", "--split", "--new", "--loosely"),
        *("--wordless", "--width", "--height", "--halved", "--reference", "--frames", "--help"),
    },
    "inspect": {"--model", "--count", "--help"},
    "doctor": {"--model", "--set", "--help"},
}
OPTIONS = {"--version", "--log-level", "--log-json", "--help"}
REPOSITORY = Path(__file__).parents[2]
DOCUMENTS = sorted(
    path
    for folder in ("", "jobs", "manifests", "platform", "serve", "tests")
    for path in (REPOSITORY / folder).glob("**/*.md" if folder else "*.md")
)
JOBS = sorted((REPOSITORY / "jobs").glob("*.py"))
LAUNCHERS = ("python", "torchrun", "accelerate")


def group() -> TyperGroup:
    found = get_command(app)
    assert isinstance(found, TyperGroup)
    return found


def parse(*words: str) -> None:
    """Read what follows ``rayreel`` as it would be read, and run nothing."""
    context = group().make_context("rayreel", [*words])
    name, *rest = [*context._protected_args, *context.args]
    name, rest = (name, rest) if name in COMMANDS else (" ".join([name, *rest[:1]]), rest[1:])
    assert name in COMMANDS, f"rayreel {name}"
    commands()[name].make_context(name, rest)


def commands() -> dict[str, Any]:
    """All of them by what follows ``rayreel``; those of a group follow its name."""
    found: dict[str, Any] = {}
    for name, command in group().commands.items():
        inner = command.commands if isinstance(command, TyperGroup) else {}
        found |= {f"{name} {one}": its for one, its in inner.items()} or {name: command}
    return found


def bash_lines(text: str) -> list[list[str]]:
    """Command lines of the bash blocks of a document, as words."""
    blocks = re.findall(r"^```(?:bash|sh)\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    lines = "\n".join(blocks).replace("\\\n", " ").splitlines()
    commands = [part for line in lines for part in re.split(r"&&|\|", line)]
    return [words for words in (shlex.split(line, comments=True) for line in commands) if words]


def calls(program: str, words: list[list[str]]) -> list[list[str]]:
    """What follows a program in the lines that call it."""
    return [
        line[index + 1 :]
        for line in words
        for index, word in enumerate(line)
        if word == program or word.endswith(f"/{program}")
    ]


@pytest.fixture(scope="module")
def targets():
    makefile = (REPOSITORY / "Makefile").read_text("utf-8")
    return set(re.findall(r"^([a-z][a-z-]*):", makefile, re.MULTILINE))


def test_commands_and_flags_are_the_listed_ones():
    context = group().make_context("rayreel", [], resilient_parsing=True)
    found = {
        name: {
            flag
            for parameter in command.get_params(context)
            for flag in (*parameter.opts, *parameter.secondary_opts)
        }
        for name, command in commands().items()
    }
    assert {n: {f for f in opts if f.startswith("-")} for n, opts in found.items()} == COMMANDS
    assert {flag for option in group().get_params(context) for flag in option.opts} == OPTIONS


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(REPOSITORY)))
def test_documents_use_commands_that_exist(document, targets):
    text = document.read_text("utf-8")
    words = bash_lines(text)
    inline = [shlex.split(line) for line in re.findall(r"`(rayreel \w+ [^`]+)`", text)]
    for call in calls("rayreel", [*words, *inline]):
        parse(*call)
    for made in calls("make", words):
        assert {target for target in made if "=" not in target} <= targets
    for script, *_ in calls("python", words):
        assert script.startswith("-") or (REPOSITORY / script).is_file()


def test_the_readme_shows_commands():
    words = bash_lines((REPOSITORY / "README.md").read_text("utf-8"))
    assert calls("make", words)
    assert calls("rayreel", words)


@pytest.mark.parametrize("job", JOBS, ids=lambda path: path.name)
def test_a_job_starts_with_its_command(job):
    text = job.read_text("utf-8")
    doc = ast.get_docstring(ast.parse(text)) or ""
    lines = [
        shlex.split(line) for line in doc.replace("\\\n", " ").splitlines() if job.name in line
    ]
    starts = {start for line in lines for start in LAUNCHERS if calls(start, [line])}
    assert starts == ({"torchrun", "accelerate"} if "launched" in job.name else {"python"})
    for line in lines:
        rest = line[line.index(f"jobs/{job.name}") + 1 :]
        assert all((REPOSITORY / word).exists() for word in rest if word.startswith("manifests/"))
        for command in re.findall(r"\btyper\.run\((\w+)_command\)", text):
            parse(command, *rest)


def test_make_targets_are_declared(targets):
    makefile = (REPOSITORY / "Makefile").read_text("utf-8")
    (phony,) = re.findall(r"^\.PHONY: (.*)$", makefile, re.MULTILINE)
    assert set(phony.split()) == targets
    assert {"setup", "demo", "check", "test"} <= targets
