"""Commands for datasets."""

# ruff: noqa: PLC0415 - see rayreel.cli

from pathlib import Path
from typing import Annotated, Literal

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
    from rayreel.requests.spec import read_encode_spec
    from rayreel.runs.encode import encode
    from rayreel.runs.encoding.forecast import forecast

    job = read_encode_spec(spec, set_ or (), output, model)
    if error_budget is not None:
        job = job.model_copy(update={"error_budget": error_budget})
    if dry_run:
        print(forecast(job))
        return 0
    summary = encode(job, retry=retry)
    print(f"{summary}\n{summary.page}")
    return summary.exit_code


@app.command(
    "explain",
    epilog=example("rayreel explain manifests/dataset.yaml", "rayreel explain job.yaml fox-17"),
)
@exits
def explain_command(
    spec: Annotated[str, typer.Argument(metavar="SPEC", help="encode spec, or a list of clips")],
    names: Annotated[
        list[str] | None,
        typer.Argument(metavar="[ROW]...", help="names of rows; by default all"),
    ] = None,
    output: Output = None,
    set_: Set = None,
    model: Model = None,
) -> int:
    """Tell what encoding a list again would encode anew, and why. Encodes nothing."""
    from rayreel.requests.spec import read_encode_spec
    from rayreel.runs.encoding.explain import explain

    print(explain(read_encode_spec(spec, set_ or (), output, model), names or ()))
    return 0


Format = Annotated[
    Literal["precomputed"],
    typer.Option("--format", help="precomputed: the folders of .pt files of the LTX-2 trainer"),
]


@app.command("export", epilog=example("rayreel export datasets/foxes datasets/foxes/.precomputed"))
@exits
def export_command(
    dataset: Annotated[str, typer.Argument(metavar="DATASET", help="folder or URI")],
    folder: Annotated[str, typer.Argument(metavar="DIR", help="folder or URI to write to")],
    format_: Format = "precomputed",  # noqa: ARG001 - the only one so far
) -> int:
    """Write a dataset in the layout of another trainer."""
    from rayreel.data.precomputed import export_precomputed

    print(f"{export_precomputed(dataset, folder)} samples in {folder}")
    return 0


@app.command("import", epilog=example("rayreel import clips/.precomputed -o datasets/clips"))
@exits
def import_command(
    folder: Annotated[str, typer.Argument(metavar="DIR", help="folder or URI to read")],
    output: Annotated[
        str, typer.Option("--output", "-o", metavar="DATASET", help="folder or URI to write")
    ],
    format_: Format = "precomputed",  # noqa: ARG001 - the only one so far
) -> int:
    """Make a dataset of what another trainer's tools have encoded."""
    from rayreel.data.precomputed import import_precomputed

    info = import_precomputed(folder, output)
    print(f"{info.num_samples} samples in {output}")
    return 0


@app.command(
    "inspect",
    epilog=example("rayreel inspect datasets/foxes", "rayreel inspect ltx-2-19b-dev.safetensors"),
)
@exits
def inspect_command(
    what: Annotated[
        str,
        typer.Argument(metavar="WHAT", help="dataset, as a folder or URI; or a safetensors file"),
    ],
    model: Annotated[
        str | None,
        typer.Option(
            "--model", metavar="MODEL", help="decodes; by default the model that has encoded"
        ),
    ] = None,
    count: Annotated[
        int, typer.Option("--count", min=1, help="samples that are decoded and compared")
    ] = 12,
) -> int:
    """Decode some samples of a dataset beside their sources, on a page to look at.

    Of a weight file, say what it holds, from its header alone.
    """
    if what.endswith(".safetensors") or Path(what).is_file():
        from rayreel.checkpoints.inspect import describe

        print(describe(Path(what)))
        return 0
    from rayreel.runs.encoding.report import inspect_dataset

    print(inspect_dataset(what, model=model, count=count))
    return 0
