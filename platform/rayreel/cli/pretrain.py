"""Commands by which networks learn from scratch and become one model."""

# ruff: noqa: PLC0415 - see rayreel.cli

from pathlib import Path
from typing import Annotated

import typer

from rayreel.cli.app import Output, Set, app, example, exits


@app.command(
    "pretrain",
    epilog=example(
        "rayreel pretrain manifests/nano/video_vae.yaml",
        "rayreel pretrain manifests/nano/video_vae.yaml --set seed=1 -o runs/other",
    ),
)
@exits
def pretrain_command(
    spec: Annotated[str, typer.Argument(metavar="SPEC", help="YAML spec")],
    output: Output = None,
    set_: Set = None,
) -> int:
    """Train one network from scratch on the drawn world. Run it again to go on where it stopped.

    Exit codes: 0 all steps are done, 2 something is wrong.
    """
    from rayreel.requests.spec import read_pretrain_spec
    from rayreel.runs.pretrain import pretrain_part

    print(pretrain_part(read_pretrain_spec(spec, set_ or (), output)))
    return 0


@app.command(
    "assemble",
    epilog=example(
        "rayreel assemble manifests/nano/architecture.yaml runs/nano/text/text.safetensors "
        "runs/nano/video_vae/video_vae.safetensors -o runs/nano/start.safetensors",
    ),
)
@exits
def assemble_command(
    architecture: Annotated[
        str, typer.Argument(metavar="ARCHITECTURE", help="YAML file with all sections")
    ],
    parts: Annotated[list[Path], typer.Argument(metavar="PART...", help="weight files")],
    output: Annotated[Path, typer.Option("--output", "-o", metavar="FILE", help="what to write")],
    seed: Annotated[int, typer.Option("--seed", help="of the transformer's weights")] = 0,
) -> int:
    """Make one checkpoint of the weight files of its parts, with a transformer that knows nothing.

    It is what `rayreel encode` reads, and where `rayreel train` in mode full begins.
    """
    from rayreel.config.load import read_mapping
    from rayreel.data.storage import Storage
    from rayreel.training.pretraining.assembly import assemble

    sections = read_mapping(Path(architecture))
    output.parent.mkdir(parents=True, exist_ok=True)
    assemble(Storage(str(output.parent)), output.name, parts, sections, seed)
    print(output)
    return 0
