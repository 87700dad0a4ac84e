"""Commands for datasets."""

# ruff: noqa: PLC0415 - see rayreel.cli

from typing import Annotated

import typer

from rayreel.cli.app import Budget, Model, Output, Retry, Set, app, example, exits


@app.command(
    "encode",
    epilog=example(
        "rayreel encode clips.csv --set buckets=768x448x89 -o datasets/foxes",
        "rayreel encode manifests/dataset.yaml --dry-run",
    ),
)
@exits
def encode_command(
    spec: Annotated[
        str,
        typer.Argument(metavar="SPEC", help="YAML spec, or a CSV, JSON, JSONL or Parquet list"),
    ],
    output: Output = None,
    set_: Set = None,
    model: Model = None,
    retry: Retry = "none",
    error_budget: Budget = None,
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run", help="scan media, tell what would become of them, encode nothing"
        ),
    ] = False,
) -> int:
    """Encode a list of clips into a dataset for training. Run it again to finish or to update it.

    Only what is missing or has changed is encoded. Exit codes: 0 all rows are in the dataset or
    were dropped by a rule, 1 some failed, 2 something is wrong, 3 too many failed.
    """
    from rayreel.runs.encode import encode
    from rayreel.runs.encoding.forecast import forecast
    from rayreel.runs.spec import read_encode_spec

    job = read_encode_spec(spec, set_ or (), output, model)
    if error_budget is not None:
        job = job.model_copy(update={"error_budget": error_budget})
    if dry_run:
        print(forecast(job))
        return 0
    summary = encode(job, retry=retry)
    print(f"{summary}\n{summary.page}")
    return summary.exit_code
