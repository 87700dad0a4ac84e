"""The ``rayreel`` command: parses, calls, prints.

Exit codes: 0 all done, 1 some items failed and all others are done, 2 bad input or environment, 3
the error budget was spent.

Commands import what they run themselves: PyTorch, transformers and Ray take ten seconds, and help
and mistyped options shall not wait for them.
"""

import importlib.metadata
from typing import Annotated, Literal

import typer

from rayreel.cli import (
    convert,
    data,
    evaluate,
    jobs,
    loadtest,
    models,
    pretrain,
    publish,
    reports,
    serve,
    train,
    world,
)
from rayreel.cli.app import app, example
from rayreel.logs import setup_logging

__all__ = [
    "app",
    "convert",
    "data",
    "evaluate",
    "jobs",
    "loadtest",
    "main",
    "models",
    "pretrain",
    "publish",
    "reports",
    "serve",
    "train",
    "world",
]


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"rayreel {importlib.metadata.version('rayreel')}")
        raise typer.Exit


@app.callback(epilog=example("rayreel render manifests/demo.yaml"))
def options(
    version: Annotated[  # noqa: ARG001 - its callback has answered
        bool,
        typer.Option("--version", help="show the version", callback=_print_version, is_eager=True),
    ] = False,
    log_level: Annotated[
        Literal["DEBUG", "INFO", "WARNING", "ERROR"],
        typer.Option("--log-level", help="least serious lines that are logged"),
    ] = "WARNING",
    log_json: Annotated[
        bool, typer.Option("--log-json", help="log lines as JSON, with run and items")
    ] = False,
) -> None:
    """LTX-2 audio-video diffusion on a Ray cluster."""
    setup_logging(log_level, json=log_json)


def main() -> None:
    """Entry point of the console command."""
    app()
