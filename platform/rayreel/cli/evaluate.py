"""The command that tells what a model has learnt."""

# ruff: noqa: PLC0415 - see rayreel.cli

from typing import Annotated

import typer

from rayreel.cli.app import Model, Output, Retry, Set, app, example, exits


@app.command(
    "eval",
    epilog=example(
        "rayreel eval manifests/nano/eval.yaml -o runs/nano/eval",
        "rayreel eval models/nano -o runs/quick --clips 20",
    ),
)
@exits
def eval_command(
    what: Annotated[
        str,
        typer.Argument(
            metavar="WHAT",
            help="YAML spec with suites; or a model to ask the usual ones: a folder of weight "
            "files, a model spec (YAML), or tiny",
        ),
    ],
    output: Output = None,
    set_: Set = None,
    model: Model = None,
    retry: Retry = "none",
    clips: Annotated[
        int | None,
        typer.Option("--clips", min=1, help="of each suite at most, for a quick look"),
    ] = None,
) -> int:
    """Render prompts about the drawn world, and tell which share of what they ask for is there.

    Run it again to finish what was interrupted, or after a change of the spec: clips that are there
    are neither rendered nor judged again. Exit codes: 0 all clips were judged, 1 some could not be
    made or read, 2 something is wrong, 3 too many failed.
    """
    from rayreel.requests.spec import read_eval_spec
    from rayreel.runs.evaluate import evaluate

    spec = read_eval_spec(what, set_ or (), output, model)
    found = evaluate(spec if clips is None else spec.shortened(clips), retry=retry)
    print(f"{found}\n{found.page}")
    return found.exit_code
