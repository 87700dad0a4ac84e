"""What a model is asked for to see what it has learnt."""

from dataclasses import dataclass
from random import Random
from typing import Literal

from rayreel.world.captions import describe
from rayreel.world.loose import loose, rough
from rayreel.world.sampling import Split, sample_scene
from rayreel.world.scene import Scene


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """A prompt, and what a clip of it has to show.

    Attributes:
        prompt: What the model reads.
        scene: What it asks for; places, speeds and phases are free.
        names_size: Whether the prompt names the sizes; else any will do.
        names_background: Whether it names the background; else any will do.
    """

    prompt: str
    scene: Scene
    names_size: bool
    names_background: bool


def asked(
    name: str,
    *,
    things: Literal[1, 2] | None = None,
    split: Split = "train",
    new: bool = False,
    loosely: float = 0.0,
) -> Asked:
    """A scene and a caption of it: the same for the same name.

    Args:
        name: What both depend on, with the other arguments.
        things: As of :func:`rayreel.world.sampling.sample_scene`.
        split: Likewise.
        new: Likewise.
        loosely: Chance that the caption is one as of :mod:`rayreel.world.loose`.
    """
    scene = sample_scene(Random(f"scene/{name}"), things=things, split=split, new=new)
    rng = Random(f"caption/{name}")
    if Random(f"loosely/{name}").random() < loosely:
        caption = loose(scene, rng)
        prompt = rough(caption.text, rng)
    else:
        caption = describe(scene, rng)
        prompt = caption.text
    return Asked(
        prompt=prompt,
        scene=scene,
        names_size=caption.names_size,
        names_background=caption.names_background,
    )


def held_out_prompts(
    n: int, seed: int, *, things: Literal[1, 2] | None = None, new: bool = False
) -> list[Asked]:
    """Prompts for combinations that training data never has.

    Args:
        n: How many; the first ones stay the same as it grows.
        seed: What they depend on.
        things: As of :func:`rayreel.world.sampling.sample_scene`.
        new: Likewise.
    """
    return [
        asked(f"prompt/{seed}/{index}", things=things, split="held-out", new=new)
        for index in range(n)
    ]
