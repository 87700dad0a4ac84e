"""The command for specs of another trainer."""

# ruff: noqa: PLC0415 - see rayreel.cli

from pathlib import Path
from typing import Annotated

import typer

from rayreel.cli.app import app, example, exits


@app.command(
    "convert",
    epilog=example("rayreel convert ltx2_av_lora.yaml -o train.yaml --dataset datasets/foxes"),
)
@exits
def convert_command(
    config: Annotated[
        Path, typer.Argument(metavar="CONFIG", help="YAML of the LTX-2 trainer, of any release")
    ],
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="SPEC", help="YAML file to write")
    ],
    dataset: Annotated[
        str | None,
        typer.Option(
            "--dataset",
            metavar="DATASET",
            help="folder or URI that its data was imported to; by default one in datasets/",
        ),
    ] = None,
) -> int:
    """Write a spec of the LTX-2 trainer as one for `rayreel train`.

    Prints what became another thing, or nothing, and why.
    """
    import yaml

    from rayreel.config.load import read_mapping
    from rayreel.config.official import convert
    from rayreel.errors import SpecError

    converted = convert(read_mapping(config), where=str(config), dataset=dataset)
    text = yaml.safe_dump(converted.values, sort_keys=False, allow_unicode=True, width=100)
    try:
        with output.open("x", encoding="utf-8") as file:
            file.write("".join(f"# {note}\n" for note in converted.notes) + text)
    except FileExistsError as error:
        raise SpecError(f"{output} exists already; name another file") from error
    except OSError as error:
        raise SpecError(f"cannot write {output}: {error}") from error
    print("\n".join([*converted.notes, str(output)]))
    return 0
