"""The ``rayreel`` command: parses, calls, prints.

Exit codes: 0 all done, 1 some items failed and all others are done, 2 bad input or environment, 3
the error budget was spent.

Commands import what they run themselves: PyTorch, transformers and Ray take ten seconds, and help
and mistyped options shall not wait for them.
"""

# ruff: noqa: PLC0415 - see above

import functools
import importlib.metadata
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Literal, ParamSpec

import typer
import yaml

from rayreel.errors import RayreelError, SpecError
from rayreel.logs import setup_logging

P = ParamSpec("P")

app = typer.Typer(
    name="rayreel",
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


def _example(*lines: str) -> str:
    """Text under a command's options, line by line: click would fill the lines like a paragraph."""
    return "\n".join(["\b", "Example:", *(f"  {line}" for line in lines)])


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"rayreel {importlib.metadata.version('rayreel')}")
        raise typer.Exit


def _share(text: str) -> float:
    """A share of a whole: ``5%`` or ``0.05``."""
    try:
        share = float(text.removesuffix("%")) / (100 if text.endswith("%") else 1)
    except ValueError:
        share = -1.0
    if not 0 <= share <= 1:
        raise typer.BadParameter(f"{text!r} is no share; expected 0% to 100%, or 0 to 1")
    return share


@app.callback(epilog=_example("rayreel render manifests/demo.yaml"))
def options(
    version: Annotated[
        bool,
        typer.Option("--version", help="show the version", callback=_print_version, is_eager=True),
    ] = False,
) -> None:
    """LTX-2 audio-video diffusion on a Ray cluster."""


@app.command(
    "render",
    epilog=_example("rayreel render manifests/demo.yaml --set defaults.steps=4 -o runs/quick"),
)
@_exits
def render_command(
    spec: Annotated[
        str,
        typer.Argument(metavar="SPEC", help="YAML spec, or a JSONL, CSV or Parquet prompt list"),
    ],
    output: Annotated[
        str | None,
        typer.Option("--output", "-o", metavar="DIR", help="run directory: a folder or a URI"),
    ] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="KEY=VALUE", help="a field that wins over the spec; repeatable"
        ),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(
            "--model", metavar="MODEL", help="folder of weight files, model spec (YAML), or tiny"
        ),
    ] = None,
    retry: Annotated[
        Literal["none", "failed"],
        typer.Option("--retry", help="failed: try the clips again that have failed, and no others"),
    ] = "none",
    error_budget: Annotated[
        float | None,
        typer.Option(
            "--error-budget",
            metavar="SHARE",
            parser=_share,
            help="stop when more of the clips have failed than this, such as 5% or 0.05",
        ),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="check everything, render nothing")
    ] = False,
) -> int:
    """Render a prompt list to MP4 files with sound. Run it again to finish what was interrupted.

    Exit codes: 0 every row has a clip, 1 some failed, 2 something is wrong, 3 too many failed.
    """
    from rayreel.runs.render import plan, render
    from rayreel.runs.spec import read_render_spec

    job = read_render_spec(spec, set_ or (), output, model)
    if error_budget is not None:
        job = job.model_copy(update={"error_budget": error_budget})
    if dry_run:
        _, rows = plan(job)
        print(f"{len(rows)} rows, {rows.num_clips} clips: all of them are valid")
        return 0
    summary = render(job, retry=retry)
    print(f"{summary}\n{summary.gallery}")
    return summary.exit_code


@app.command(
    "tiny", epilog=_example("rayreel tiny set", "rayreel render manifests/demo.jsonl --model set")
)
@_exits
def tiny_command(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="where to write the files")],
    generation: Annotated[
        Literal["2.0", "2.3"], typer.Option("--generation", help="architecture of the networks")
    ] = "2.0",
) -> int:
    """Write the tiny model in the layout of the official files.

    Prints the part of a spec that names them.
    """
    from rayreel.checkpoints.tiny import write_tiny

    try:
        model = write_tiny(folder.absolute(), generation)
    except OSError as error:
        raise SpecError(f"cannot write the tiny model to {folder}: {error}") from error
    section = {"model": model.model_dump(exclude_defaults=True)}
    print(yaml.safe_dump(section, sort_keys=False), end="")
    return 0


@app.command("inspect", epilog=_example("rayreel inspect ltx-2-19b-dev.safetensors"))
@_exits
def inspect_command(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="safetensors file")],
) -> int:
    """Say what a weight file holds, from its header alone."""
    from rayreel.checkpoints.inspect import describe

    print(describe(file))
    return 0


@app.command(
    "doctor",
    epilog=_example(
        "rayreel doctor --model /weights/ltx-2",
        "rayreel doctor --model manifests/models/ltx-2-19b-dev.yaml --set model.folder=/weights",
    ),
)
@_exits
def doctor_command(
    model: Annotated[
        str,
        typer.Option(
            "--model", metavar="MODEL", help="folder of weight files, model spec (YAML), or tiny"
        ),
    ] = "tiny",
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="a field that wins over the spec"),
    ] = None,
) -> int:
    """Check a set of weight files without loading it: is it complete, and can it run here?

    Exit codes: 0 yes, 1 this machine is too small for it, 2 something is wrong with the set.
    """
    from rayreel.runs.doctor import diagnose_model

    diagnosis = diagnose_model(model, set_ or ())
    print(diagnosis)
    return diagnosis.exit_code


def main() -> None:
    """Entry point of the console command."""
    app()
