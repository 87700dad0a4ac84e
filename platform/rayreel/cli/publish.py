"""The command that publishes what a training run has learned."""

# ruff: noqa: PLC0415 - see rayreel.cli

from typing import Annotated

import typer

from rayreel.cli.app import app, example, exits


@app.command(
    "publish",
    epilog=example(
        "rayreel publish runs/foxes /shared/adapters/foxes --name foxes",
        "rayreel publish s3://bucket/runs/foxes hf://user/foxes-lora --private",
    ),
)
@exits
def publish_command(
    run: Annotated[
        str, typer.Argument(metavar="RUN", help="directory of a training run: a folder or a URI")
    ],
    to: Annotated[
        str,
        typer.Argument(
            metavar="TO", help="folder, URI, or hf://user/name for the Hugging Face hub"
        ),
    ],
    name: Annotated[
        str | None,
        typer.Option("--name", metavar="NAME", help="of the adapter, for rows and specs here"),
    ] = None,
    private: Annotated[
        bool, typer.Option("--private", help="a repository that is made is not for everybody")
    ] = False,
) -> int:
    """Publish the newest weights of a training run, with a model card and its validation clips."""
    from rayreel.runs.publish import publish

    print(publish(run, to, name=name, private=private))
    return 0
