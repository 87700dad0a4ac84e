"""The command that sends many jobs to a service."""

# ruff: noqa: PLC0415 - see rayreel.cli

from pathlib import Path
from typing import Annotated

import typer

from rayreel.cli.app import Set, app, example, exits


@app.command(
    "loadtest",
    epilog=example(
        "rayreel loadtest http://127.0.0.1:8000 --set jobs=100 --set rate=2",
        "rayreel loadtest http://127.0.0.1:8000 mix.yaml --set follow=events -o jobs.jsonl",
    ),
)
@exits
def loadtest_command(
    url: Annotated[str, typer.Argument(metavar="URL", help="address of a service")],
    spec: Annotated[
        Path | None,
        typer.Argument(metavar="SPEC", help="YAML: how many jobs, how fast, and the mix of them"),
    ] = None,
    settings: Set = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="FILE", help="a JSON line for each job"),
    ] = None,
    allow_remote: Annotated[
        bool, typer.Option("--allow-remote", help="the service may be on another machine")
    ] = False,
) -> int:
    """Send jobs of several shapes to a service, follow them, and say how it went.

    The API key is taken from RAYREEL_API_KEY. Exit code 1: some jobs were not done.
    """
    import asyncio
    import json
    import os

    from rayreel.config.load import load_spec, parse
    from rayreel.serving.loadtest import LoadSpec, run_load
    from rayreel.serving.loadtest_results import LoadReport

    overrides = settings or ()
    load = (
        load_spec(spec, LoadSpec, overrides)
        if spec
        else parse({}, LoadSpec, where="--set", overrides=overrides)
    )
    key = os.environ.get("RAYREEL_API_KEY")
    outcomes = asyncio.run(run_load(url, load, key=key, allow_remote=allow_remote))
    if output:
        lines = [json.dumps(outcome.to_json()) for outcome in outcomes]
        output.write_text("\n".join([*lines, ""]), "utf-8")
    report = LoadReport.of(outcomes)
    print(report.table())
    for message in sorted({one.message for one in outcomes if one.message and one.end != "done"}):
        print(f"- {message}")
    return 0 if report.ends["done"] == len(outcomes) else 1
