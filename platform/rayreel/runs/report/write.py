"""One pass over a run's rows and ledger writes everything that it leaves to look at."""

import shutil
import tempfile
from contextlib import ExitStack
from pathlib import Path

from rayreel.data.ledger_table import LedgerTable
from rayreel.data.storage import Storage
from rayreel.runs.report.failed import write_rows
from rayreel.runs.report.gallery import Gallery
from rayreel.runs.report.outcomes import read_outcomes
from rayreel.runs.report.results import SCHEMA, ResultsTable, record
from rayreel.runs.report.run_page import run_page
from rayreel.runs.report.statistics import Statistics
from rayreel.runs.requests import RowPlan

_FAILED = "failed.jsonl"


def write_report(
    storage: Storage,
    rows: RowPlan,
    table: LedgerTable,
    *,
    title: str,
    summary: str,
    comparison: str | None = None,
) -> None:
    """Write ``results.parquet``, the gallery, ``report.html``, and ``failed.jsonl`` if rows failed.

    Memory does not grow with the list but for some 100 bytes of each row.

    Args:
        storage: The run directory.
        rows: The prompt list; rows whose item the ledger does not know are left.
        table: The ledger.
        title: Heading of the pages.
        summary: What the run came to, in one line.
        comparison: What was planned against what happened, as lines of text.

    Raises:
        SpecError: If the list is not what it was.
    """
    gallery, found = Gallery(storage), Statistics()
    with ExitStack() as stack:
        results = stack.enter_context(
            ResultsTable(stack.enter_context(storage.local_staging("results.parquet")), SCHEMA)
        )
        failed = stack.enter_context(
            tempfile.NamedTemporaryFile("w", encoding="utf-8", suffix=".jsonl")
        )
        for outcomes in read_outcomes(rows, table):
            results.add([record(one) for one in outcomes])
            gallery.add(outcomes)
            found.add(outcomes)
            write_rows(failed, (one.row for one in outcomes if one.status == "failed"))
        failed.flush()
        if found.statuses["failed"]:
            with storage.local_staging(_FAILED) as staged:
                shutil.copyfile(Path(failed.name), staged)
        else:
            storage.remove([_FAILED])
    page = run_page(found, title=title, summary=summary, comparison=comparison)
    storage.write_bytes("report.html", page)
    gallery.finish(title=title, summary=summary)
