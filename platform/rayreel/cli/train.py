"""The command that trains."""

# ruff: noqa: PLC0415 - see rayreel.cli

from typing import Annotated

import typer

from rayreel.cli.app import Model, Output, Set, app, example, exits


@app.command(
    "train",
    epilog=example(
        "rayreel train manifests/train.yaml",
        "rayreel train datasets/foxes --model /weights/ltx-2.3 --set optimization.steps=500",
        "rayreel train fox.yaml --set workers.num_workers='[2, 8]' -o s3://bucket/runs/fox",
    ),
)
@exits
def train_command(
    spec: Annotated[
        str,
        typer.Argument(
            metavar="SPEC",
            help="YAML spec, also of the LTX-2 trainer; or a dataset's folder or URI",
        ),
    ],
    output: Output = None,
    set_: Set = None,
    model: Model = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="check everything, train nothing")
    ] = False,
) -> int:
    """Fine-tune a model on a dataset. Run it again to go on from the last checkpoint.

    Exit codes: 0 all steps are done, 2 something is wrong.
    """
    from rayreel.requests.spec import read_train_spec
    from rayreel.runs.finetune import describe, finetune

    job = read_train_spec(spec, set_ or (), output, model)
    if dry_run:
        print(describe(job))
        return 0
    summary = finetune(job)
    print(f"{summary}\n{summary.weights}\n{summary.page}")
    return 0
