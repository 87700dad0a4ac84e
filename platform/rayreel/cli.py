"""The ``rayreel`` command: parses, calls, prints.

Exit codes: 0 all done, 1 some items failed and all others are done, 2 bad input or environment.
"""

import functools
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, ParamSpec

import typer

from rayreel.checkpoints.inspect import describe
from rayreel.checkpoints.tiny import write_tiny
from rayreel.errors import RayreelError
from rayreel.logs import setup_logging
from rayreel.runs.render import plan, render
from rayreel.runs.spec import read_render_spec

P = ParamSpec("P")

app = typer.Typer(
    name="rayreel",
    help="LTX-2 audio-video diffusion on a Ray cluster.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


def _exits(command: Callable[P, int]) -> Callable[P, None]:
    """Turn the number that a command returns into its exit code, and our errors into exit 2."""

    @functools.wraps(command)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        setup_logging("WARNING")
        try:
            code = command(*args, **kwargs)
        except RayreelError as error:
            print(f"rayreel: {error}", file=sys.stderr)
            code = 2
        raise typer.Exit(code)

    return run


@app.command("render")
@_exits
def render_command(
    spec: Annotated[str, typer.Argument(help="YAML spec, or a JSONL, CSV or Parquet prompt list")],
    output: Annotated[
        str | None, typer.Option("--output", "-o", help="run directory: a folder or a URI")
    ] = None,
    set_: Annotated[
        list[str] | None, typer.Option("--set", help="key=value that wins over the spec")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="check everything, render nothing")
    ] = False,
) -> int:
    """Render a prompt list to MP4 files with sound. Run it again to finish what was interrupted.

    Example: rayreel render manifests/demo.yaml --set defaults.steps=4 -o runs/quick
    """
    job = read_render_spec(spec, set_ or (), output)
    if dry_run:
        _, rows = plan(job)
        print(
            f"{len(rows)} rows, {len({row.item_id for row in rows})} clips: all of them are valid"
        )
        return 0
    summary = render(job)
    print(f"{summary}\n{summary.gallery}")
    return summary.exit_code


@app.command("tiny")
@_exits
def tiny_command(
    folder: Annotated[Path, typer.Argument(help="where to write the files")],
) -> int:
    """Write the tiny model in the layout of the official files.

    Example: rayreel tiny /tmp/tiny && rayreel inspect /tmp/tiny/ltx-2-tiny.safetensors
    """
    write_tiny(folder)
    for file in sorted(folder.rglob("*")):
        if file.is_file():
            print(f"{file.stat().st_size / 2**20:8.2f} MiB  {file}")
    return 0


@app.command("inspect")
@_exits
def inspect_command(
    file: Annotated[Path, typer.Argument(help="safetensors file")],
) -> int:
    """Say what a weight file holds, from its header alone.

    Example: rayreel inspect ltx-2-19b-dev.safetensors
    """
    print(describe(file))
    return 0


def main() -> None:
    """Entry point of the console command."""
    app()
