"""Commands that tell of runs."""

# ruff: noqa: PLC0415 - see rayreel.cli

from typing import Annotated

import typer

from rayreel.cli.app import app, example, exits


@app.command(
    "report", epilog=example("rayreel report runs/foxes", "rayreel report s3://bucket/runs/foxes")
)
@exits
def report_command(
    run: Annotated[
        str,
        typer.Argument(metavar="RUN", help="directory of a training run: a folder or a URI"),
    ],
) -> int:
    """Write the page of a training run as it is now: curves, clips by step, weights."""
    from rayreel.runs.training.report import write_report

    print(write_report(run))
    return 0
