"""Commands for weight files."""

# ruff: noqa: PLC0415 - see rayreel.cli

from pathlib import Path
from typing import Annotated, Literal

import typer
import yaml

from rayreel.cli.app import app, example, exits
from rayreel.errors import SpecError


@app.command(
    "tiny", epilog=example("rayreel tiny set", "rayreel render manifests/demo.jsonl --model set")
)
@exits
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


@app.command(
    "doctor",
    epilog=example(
        "rayreel doctor --model /weights/ltx-2",
        "rayreel doctor --model manifests/models/ltx-2-19b-dev.yaml --set model.folder=/weights",
    ),
)
@exits
def doctor_command(
    model: Annotated[
        str,
        typer.Option(
            "--model", metavar="MODEL", help="folder of weight files, model spec (YAML), or tiny"
        ),
    ] = "tiny",
    set_: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="KEY=VALUE", help="a field that wins over the spec; repeatable"
        ),
    ] = None,
) -> int:
    """Check a set of weight files without loading it: is it complete, and can it run here?

    Exit codes: 0 yes, 1 this machine is too small for it, 2 something is wrong with the set.
    """
    from rayreel.runs.doctor import diagnose_model

    diagnosis = diagnose_model(model, set_ or ())
    print(diagnosis)
    return diagnosis.exit_code
