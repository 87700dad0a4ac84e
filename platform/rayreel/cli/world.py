"""The command for clips of a small drawn world."""

# ruff: noqa: PLC0415 - see rayreel.cli

import sys
from pathlib import Path
from typing import Annotated, Literal

import typer

from rayreel.cli.app import app, example, exits
from rayreel.errors import SpecError


@app.command(
    "world",
    epilog=example(
        "rayreel world -n 2000 -o datasets/world",
        "rayreel encode datasets/world/clips.jsonl --set buckets=128x128x25 -o datasets/encoded",
    ),
)
@exits
def world_command(  # noqa: PLR0913, PLR0917 - options, which are given by name
    output: Annotated[Path, typer.Option("--output", "-o", metavar="DIR", help="where to write")],
    count: Annotated[int, typer.Option("--count", "-n", min=1, help="clips")] = 100,
    seed: Annotated[int, typer.Option("--seed", help="other clips for another number")] = 0,
    split: Annotated[
        Literal["train", "held-out", "all"],
        typer.Option(
            "--split",
            help="train: without the combinations of colour, shape and motion that are kept to "
            "test with; held-out: those alone",
        ),
    ] = "train",
    new: Annotated[
        bool, typer.Option("--new", help="pink things and hearts, which are in no other clips")
    ] = False,
    loosely: Annotated[
        float,
        typer.Option(
            "--loosely",
            min=0,
            max=1,
            help="share of clips whose captions are put as people may put them: with other words, "
            "in other orders, with mistakes",
        ),
    ] = 0.0,
    wordless: Annotated[
        float,
        typer.Option(
            "--wordless",
            min=0,
            max=1,
            help="share of clips whose captions say nothing, for guidance to lead away from",
        ),
    ] = 0.0,
    width: Annotated[int, typer.Option("--width", min=32, help="pixels, an even number")] = 128,
    height: Annotated[int, typer.Option("--height", min=32, help="pixels, an even number")] = 128,
    halved: Annotated[
        float,
        typer.Option(
            "--halved",
            min=0,
            max=1,
            help="share of clips that are half as wide and high, as the first of two stages makes "
            "them",
        ),
    ] = 0.0,
    reference: Annotated[
        Literal["last-frame", "outlines"] | None,
        typer.Option(
            "--reference",
            help="what is beside each clip, for a model to learn how to follow it: its last frame "
            "as an image, or the moving outlines of its things, white on black",
        ),
    ] = None,
    frames: Annotated[
        int, typer.Option("--frames", min=1, help="of each clip, at 24 per second")
    ] = 25,
) -> int:
    """Make clips of a small drawn world, with sound and captions, for a model to learn from.

    Coloured things move, bounce and grow; each sounds with the tone of its colour. Run it again to
    finish what was stopped, or for more clips: those that are there are kept.
    """
    from tqdm import tqdm

    from rayreel.world.contact import contact_sheet
    from rayreel.world.dataset import Format, Mixture, write_clips

    try:
        mixture = Mixture(
            seed=seed,
            split=split,
            new=new,
            loosely=loosely,
            wordless=wordless,
            form=Format(width=width, height=height, num_frames=frames),
            halved=halved,
            reference=reference,
        )
    except ValueError as error:
        raise SpecError(str(error)) from error
    # A log file takes a line of progress now and then, and a terminal a moving bar.
    interval_s = 0.1 if sys.stderr.isatty() else 10
    with tqdm(total=count, unit="clip", desc="drawing", mininterval=interval_s) as bar:

        def done() -> None:
            bar.update()

        try:
            manifest = write_clips(output, count, mixture, done=done)
            contact_sheet(manifest, output / "contact.jpg")
        except OSError as error:
            raise SpecError(f"cannot write clips to {output}: {error}") from error
    print(f"{count} clips in {manifest}\n{output / 'contact.jpg'}")
    return 0
