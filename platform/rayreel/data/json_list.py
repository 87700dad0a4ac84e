"""A JSON list of any length, read with one of its elements in memory at a time."""

import json
from collections.abc import Iterator
from typing import Any, NamedTuple, TextIO

_PIECE = 2**16
# The last characters that were read may be the beginning of a number, a word or an escape.
_UNSURE = 16
_BLANK = " \t\n\r"


class Element(NamedTuple):
    """One element of a list.

    Attributes:
        value: ``None`` if there is a fault.
        fault: What is wrong with it.
    """

    value: Any
    fault: str | None = None


def elements(file: TextIO) -> Iterator[Element]:
    """Elements of the list that a file holds, in order.

    An element that is no JSON is the last one: nobody knows where the next one begins.

    Raises:
        ValueError: If the file holds something else than a list, or more.
    """
    text = _Text(file)
    if (first := text.peek()) != "[":
        raise ValueError(f"it should hold a list, [...], but starts with {first!r}")
    text.skip()
    if text.peek() == "]":
        text.skip()
    else:
        yield from _separated(text)
    if text.peek():
        raise ValueError(f"there is something behind its list, at {text.place(text.position)}")


def _separated(text: "_Text") -> Iterator[Element]:
    """Elements up to the end of the list."""
    while True:
        try:
            yield text.element()
            is_last = text.is_end()
        except _Damage as damage:
            yield Element(None, f"{damage.said} at {text.place(damage.position)}")
            # What follows cannot be told apart.
            text.drop()
            return
        if is_last:
            return


class _Damage(Exception):  # noqa: N818 - becomes the fault of an element
    """What is no JSON, and where in the text at hand."""

    def __init__(self, said: str, position: int) -> None:
        super().__init__(said)
        self.said = said
        self.position = position


class _Text:
    """A file's text from what was not read yet, as far as it is needed.

    Attributes:
        position: Of what comes next in the text at hand.
    """

    def __init__(self, file: TextIO) -> None:
        self.position = 0
        self._file = file
        self._text = ""
        self._is_whole = False
        # Line and column, from 1, of the first character of the text at hand.
        self._line, self._column = 1, 1
        self._constants: list[str] = []
        self._decoder = json.JSONDecoder(parse_constant=self._constants.append)

    def peek(self) -> str:
        """The next character that is not blank; nothing at the end."""
        while True:
            while self.position < len(self._text) and self._text[self.position] in _BLANK:
                self.position += 1
            if self.position < len(self._text):
                return self._text[self.position]
            if self._is_whole:
                return ""
            self._read()

    def skip(self) -> None:
        """Go on behind a character."""
        self.position += 1

    def is_end(self) -> bool:
        """Go on behind what follows an element: the end of the list, or a comma."""
        mark = self.peek()
        if mark not in ("]", ","):
            raise _Damage("Expecting ',' or ']'", self.position)
        self.skip()
        return mark == "]"

    def drop(self) -> None:
        """Forget the text; nothing is read any more."""
        self._text, self.position, self._is_whole = "", 0, True

    def element(self) -> Element:
        """Read the next value."""
        self.peek()
        while True:
            self._constants.clear()
            try:
                value, end = self._decoder.raw_decode(self._text, self.position)
            except json.JSONDecodeError as error:
                if self._is_whole or not self._may_go_on(error):
                    raise _Damage(error.msg, error.pos) from error
            else:
                if self._is_whole or end < len(self._text):
                    break
            self._read()
        self.position = end
        if self._constants:
            return Element(None, f"{self._constants[0]} is not a JSON number")
        return Element(value)

    def place(self, position: int) -> str:
        """Where a person finds a position of the text at hand."""
        line, column = self._moved(position)
        return f"line {line}, column {column}"

    def _may_go_on(self, error: json.JSONDecodeError) -> bool:
        is_open = error.msg.startswith("Unterminated string")
        return is_open or error.pos >= len(self._text) - _UNSURE

    def _read(self) -> None:
        """Read on, the more the longer the value is that the text at hand begins with."""
        self._line, self._column = self._moved(self.position)
        kept = self._text[self.position :]
        more = self._file.read(max(_PIECE, len(kept)))
        self._text, self.position, self._is_whole = kept + more, 0, not more

    def _moved(self, position: int) -> tuple[int, int]:
        """Line and column of a position of the text at hand."""
        before = self._text[:position]
        lines = before.count("\n")
        if not lines:
            return self._line, self._column + position
        return self._line + lines, position - before.rindex("\n")
