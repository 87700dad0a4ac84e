"""Prompt lists of any length: checked as a whole, kept as identities, read again for the rest."""

import hashlib
import logging
import sys
from array import array
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import chain, islice
from typing import Any

import numpy as np
from tqdm import tqdm

from rayreel.checkpoints.files import ModelFiles
from rayreel.config.jobs import RenderSpec
from rayreel.config.request import RenderRequest
from rayreel.data.manifest import FaultList, Manifest, Row
from rayreel.errors import SpecError
from rayreel.requests.row_files import RowFiles
from rayreel.requests.templates import FaultyRow, Own, Template, Templates

_MOST_FAULTS = 50
_MOST_ROWS = 5
_MANY_ROWS = 20_000
_DIGEST_BYTES = 16

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class PlannedRow:
    """One row of the prompt list.

    Attributes:
        number: Position in the list, from 1.
        name: The row's ``id``, or ``row-<number>``.
        item_id: Identity of what it asks for; equal rows share it.
        request: The resolved request.
        reason: Why it goes to its pipeline.
        notes: What is otherwise than a reader of the row may expect.
    """

    number: int
    name: str
    item_id: str
    request: RenderRequest
    reason: str
    notes: tuple[str, ...] = ()


class RowPlan:
    """The rows of a list that was checked: some 50 bytes of each, the rest is read again.

    Attributes:
        item_ids: Identity of what each row asks for, ``(rows,)`` of dtype ``S32``, in order.
        num_clips: Distinct identities.
        num_texts: Distinct texts that go through the text encoder, as the rows have them.
    """

    def __init__(
        self, manifest: Manifest, templates: Templates, seed: int, columns: "_Columns"
    ) -> None:
        """Keep what was found; ``plan_rows`` makes plans.

        Args:
            manifest: The list.
            templates: Of its rows.
            seed: The job's.
            columns: A value for each row.
        """
        self._manifest = manifest
        self._templates = templates
        self._seed = seed
        self._numbers = columns.numbers
        self.item_ids = np.frombuffer(columns.item_ids, dtype="S32")
        self.item_ids.flags.writeable = False
        _, first = np.unique(self.item_ids, return_index=True)
        self.num_clips = len(first)
        self._shapes = np.frombuffer(columns.shapes, dtype=np.uint32)
        self._first = first
        self.num_texts = len(np.unique(np.frombuffer(columns.texts, dtype=np.int64)))

    def __len__(self) -> int:
        """Number of rows."""
        return len(self.item_ids)

    def __iter__(self) -> Iterator[PlannedRow]:
        """All rows, as ``rows`` reads them."""
        return self.rows()

    def shapes(
        self, item_ids: "np.ndarray[Any, Any] | None" = None
    ) -> list[tuple[RenderRequest, int]]:
        """What can share batches: an example of each kind, and how many distinct clips it has.

        Args:
            item_ids: Clips that count, as bytes; by default all do.
        """
        # One that differs from another in the paths of equal files alone has no clip of its own.
        rows = self._first
        if item_ids is not None:
            rows = rows[np.isin(self.item_ids[rows], item_ids)]
        examples = self._templates.examples
        clips = np.bincount(self._shapes[rows], minlength=len(examples)).tolist()
        return [(one, count) for one, count in zip(examples, clips, strict=True) if count]

    def rows(self, wanted: Callable[[str], bool] | None = None) -> Iterator[PlannedRow]:
        """Read the list again.

        Args:
            wanted: Whether rows of an item are wanted, asked once for each row when its turn comes;
                by default all are. The others cost little.

        Raises:
            SpecError: If the list is not what it was.
        """
        expected: deque[int] = deque()

        def numbers() -> Iterator[int]:
            for index, number in enumerate(self._numbers):
                if wanted is None or wanted(self._item_id(index)):
                    expected.append(index)
                    yield number

        for number, values in self._manifest.rows(numbers()):
            index = expected.popleft()
            row = self._planned(number, values) if number == self._numbers[index] else None
            if row is None or row.item_id != self._item_id(index):
                raise self._manifest.changed(f"row {self._numbers[index]} was another one")
            yield row
        if expected:
            raise self._manifest.changed(f"row {self._numbers[expected[0]]} was there")

    def _item_id(self, index: int) -> str:
        return bytes(self.item_ids[index]).decode()

    def _planned(self, number: int, values: dict[str, Any]) -> PlannedRow | None:
        name = _take_name(number, values)
        try:
            template, own = self._templates.match(values)
        except FaultyRow:
            return None
        item_id, seed = template.identify(own, self._seed)
        return PlannedRow(
            number=number,
            name=name,
            item_id=item_id,
            request=template.asked(own, seed),
            reason=template.reason,
            notes=template.notes,
        )


def plan_rows(spec: RenderSpec, files: ModelFiles) -> RowPlan:
    """Read, check and resolve a prompt list.

    Args:
        spec: The job; ``prompts`` is an absolute path or a URI.
        files: Its model.

    Returns:
        The plan of its rows, in order.

    Raises:
        SpecError: Naming row, field, what was expected and the nearest legal value, for all rows.
    """
    manifest = Manifest(spec.prompts)
    row_files = RowFiles(spec.prompts.rpartition("/")[0], spec.output)
    templates = Templates(spec.defaults, files, row_files)
    columns, names = _Columns(), _Names()
    wrong = FaultList(_MOST_FAULTS)
    ignored: dict[str, _Some] = {}
    for number, values in _shown(manifest):
        names.add(number, _take_name(number, values))
        try:
            template, own = templates.match(values)
        except FaultyRow as faulty:
            for line in faulty.lines:
                wrong.add(number, f"row {number}: {line}")
            continue
        item_id, _ = template.identify(own, spec.seed)
        columns.add(number, item_id, template, own)
        if template.ignored:
            ignored.setdefault(template.ignored, _Some()).add(number)
    wrong.include(names.faults(manifest))
    if wrong.count:
        raise SpecError(wrong.text(f"{spec.prompts}:"))
    if not columns.numbers:
        raise SpecError(f"{spec.prompts} has no rows")
    for said, numbers in ignored.items():
        log.warning("%s, in row %s", said, numbers)
    return RowPlan(manifest, templates, spec.seed, columns)


def _take_name(number: int, values: dict[str, Any]) -> str:
    """The name of a row, which is no part of what it asks for."""
    return str(values.pop("id", f"row-{number}"))


def _shown(rows: Iterable[Row]) -> Iterator[Row]:
    """The rows, with a bar that moves where there are many."""
    left = iter(rows)
    yield from islice(left, _MANY_ROWS)
    if (row := next(left, None)) is None:
        return
    # A log file takes a line of progress now and then, and a terminal a moving bar.
    interval_s = 0.1 if sys.stderr.isatty() else 10
    with tqdm(
        chain([row], left),
        desc="checking rows",
        unit="row",
        initial=_MANY_ROWS,
        mininterval=interval_s,
    ) as bar:
        yield from bar


class _Columns:
    """What is kept of each row.

    Attributes:
        numbers: Where it is in the list.
        item_ids: 32 bytes each.
        shapes: Of its template.
        texts: Hashes of texts that go through the text encoder, some of them more than once.
    """

    def __init__(self) -> None:
        self.numbers = array("Q")
        self.item_ids = bytearray()
        self.shapes = array("I")
        self.texts = array("q")
        # Of rows that have none of their own: nearly all rows, and few texts.
        self._negatives: set[str] = set()

    def add(self, number: int, item_id: str, template: Template, own: Own) -> None:
        self.numbers.append(number)
        self.item_ids += item_id.encode()
        self.shapes.append(template.shape)
        if not template.encodes:
            return
        prompt, negative = template.texts(own)
        self.texts.append(hash(prompt))
        if negative is None or negative in self._negatives:
            return
        if not template.negates:
            self._negatives.add(negative)
        self.texts.append(hash(negative))


class _Names:
    """Names of rows, in 24 bytes each, to find those that are used again."""

    def __init__(self) -> None:
        self._numbers = array("Q")
        self._digests = bytearray()

    def add(self, number: int, name: str) -> None:
        data = name.encode(errors="surrogatepass")
        self._numbers.append(number)
        self._digests += hashlib.blake2b(data, digest_size=_DIGEST_BYTES).digest()

    def faults(self, manifest: Manifest) -> FaultList:
        """Rows whose name another one has that comes before."""
        digests = np.frombuffer(self._digests, dtype=f"S{_DIGEST_BYTES}")
        order = np.argsort(digests, kind="stable")
        repeats = np.flatnonzero(digests[order[1:]] == digests[order[:-1]])
        numbers = np.frombuffer(self._numbers, dtype=np.uint64)
        users = dict(
            sorted(
                zip(
                    numbers[order[repeats + 1]].tolist(),
                    numbers[order[repeats]].tolist(),
                    strict=True,
                )
            )
        )
        found = FaultList(_MOST_FAULTS)
        for number, values in manifest.rows(islice(users, _MOST_FAULTS)):
            name = _take_name(number, values)
            found.add(number, f"row {number}: id {name!r} was used by row {users[number]}")
        found.count = len(users)
        return found


class _Some:
    """Numbers of rows: the first few, and how many more there are."""

    def __init__(self) -> None:
        self._first: list[int] = []
        self._count = 0

    def add(self, number: int) -> None:
        self._count += 1
        if self._count <= _MOST_ROWS:
            self._first.append(number)

    def __str__(self) -> str:
        more = self._count - len(self._first)
        return ", ".join([*map(str, self._first), *([f"{more} more"] if more else [])])
