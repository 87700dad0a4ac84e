"""Texts to learn to read from, with what they say: captions of the world, and looser ones."""

from random import Random

from rayreel.config.request import DEFAULT_NEGATIVE_PROMPT
from rayreel.training.pretraining.meaning import Meaning, SaidThing
from rayreel.world.captions import Caption, describe
from rayreel.world.loose import loose, rough
from rayreel.world.sampling import Split, sample_scene
from rayreel.world.scene import Scene

Text = tuple[str, Meaning]

_SILENT = 0.04
_NEW = 0.2
_LOOSE = 0.5


def learnt(rng: Random) -> Text:
    """A text to learn from: never of a combination that is held out."""
    if rng.random() < _SILENT:
        return _silent(rng), Meaning()
    scene = sample_scene(rng, new=rng.random() < _NEW)
    said = (loose if rng.random() < _LOOSE else describe)(scene, rng)
    return rough(said.text, rng), meaning(scene, said)


def captions(n: int, seed: int, split: Split) -> list[Text]:
    """Captions of the world as they are: the same for the same seed."""
    rng = Random(f"captions/{seed}/{split}")
    return [_captioned(sample_scene(rng, split=split), rng) for _ in range(n)]


def _captioned(scene: Scene, rng: Random) -> Text:
    said = describe(scene, rng)
    return said.text, meaning(scene, said)


def meaning(scene: Scene, said: Caption) -> Meaning:
    """What a caption of a scene says."""
    return Meaning(
        things=tuple(
            SaidThing(
                colour=thing.colour,
                shape=thing.shape,
                motion=thing.motion,
                size=thing.size if said.names_size else None,
            )
            for thing in scene.things
        ),
        background=scene.background if said.names_background else None,
        sounds=said.sounds,
    )


def _silent(rng: Random) -> str:
    """A text that says nothing of the world: none, or what nobody wants to see."""
    unwanted = DEFAULT_NEGATIVE_PROMPT.split(", ")
    return rng.choice(
        ("", "", DEFAULT_NEGATIVE_PROMPT, ", ".join(rng.sample(unwanted, rng.randint(1, 12))))
    )
