"""Pipelines say what is different about them, and share the rest."""

import ast
import io
import keyword
import re
import tokenize
from collections.abc import Iterator
from difflib import SequenceMatcher
from itertools import combinations
from pathlib import Path

import pytest

from rayreel.pipelines import PIPELINE_CLASSES

FOLDER = Path(__file__).parents[2] / "platform" / "rayreel" / "pipelines"
FILES = sorted(
    {FOLDER / f"{kind.__module__.split('.')[-1]}.py" for kind in PIPELINE_CLASSES.values()}
)
PAIRS = [*combinations(FILES, 2)]
MOST_IN_COMMON = 0.4
PLACEHOLDERS = {tokenize.NAME: "name", tokenize.NUMBER: "number", tokenize.STRING: "text"}
LAYOUT = {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT}


def skipped_lines(tree: ast.Module) -> set[int]:
    """Numbers of the lines that imports and docstrings take."""
    nodes: list[ast.stmt] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            nodes.append(node)
        body = getattr(node, "body", None)
        if isinstance(body, list) and body and isinstance(body[0], ast.Expr):
            value = body[0].value
            if isinstance(value, ast.Constant) and isinstance(value.value, str):
                nodes.append(body[0])
    return {n for node in nodes for n in range(node.lineno, (node.end_lineno or node.lineno) + 1)}


def code_lines(text: str) -> Iterator[list[tokenize.TokenInfo]]:
    """Tokens of each line of code."""
    skipped = skipped_lines(ast.parse(text))
    lines: dict[int, list[tokenize.TokenInfo]] = {}
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type not in LAYOUT and token.string and token.start[0] not in skipped:
            lines.setdefault(token.start[0], []).append(token)
    yield from lines.values()


def as_written(text: str) -> list[str]:
    return [" ".join(token.string for token in line) for line in code_lines(text)]


def as_shapes(text: str) -> list[str]:
    def shape(token: tokenize.TokenInfo) -> str:
        if keyword.iskeyword(token.string):
            return token.string
        return PLACEHOLDERS.get(token.type, token.string)

    return [" ".join(map(shape, line)) for line in code_lines(text)]


def in_common(one: list[str], other: list[str]) -> float:
    """Share of all lines that both have, in the same order."""
    return SequenceMatcher(None, one, other, autojunk=False).ratio()


@pytest.fixture(scope="module")
def texts():
    return {path: path.read_text("utf-8") for path in FILES}


def test_every_file_with_a_pipeline_is_compared():
    states_traits = re.compile(r"^    traits = (PipelineTraits|replace)\(", re.MULTILINE)
    found = {p for p in FOLDER.glob("*.py") if states_traits.search(p.read_text("utf-8"))}
    assert found
    assert found <= {*FILES}


def test_a_file_is_all_in_common_with_itself_and_with_the_same_under_other_names(texts):
    text = texts[FOLDER / "two_stage.py"]
    renamed = text.replace("TwoStage", "Double").replace("request", "asked").replace("latents", "a")
    assert in_common(as_written(text), as_written(text)) == 1
    assert in_common(as_written(text), as_written(renamed)) < 1
    assert in_common(as_shapes(text), as_shapes(renamed)) == 1


@pytest.mark.parametrize("lines", [as_written, as_shapes])
@pytest.mark.parametrize("pair", PAIRS, ids=lambda p: f"{p[0].stem}-{p[1].stem}")
def test_no_two_pipelines_are_alike(texts, pair, lines):
    one, other = (lines(texts[path]) for path in pair)
    share = in_common(one, other)
    assert share <= MOST_IN_COMMON, f"{share:.0%} in common"
