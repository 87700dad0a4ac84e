"""Whether a clip shows and sounds like what was asked for."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from rayreel.world.measure.picture import Picture, SeenThing, measure_picture
from rayreel.world.measure.sound import Heard, measure_sound
from rayreel.world.prompts import Asked
from rayreel.world.scene import Colour, Thing

# So near to the start or end of a clip, a bounce cannot be seen for certain.
_EDGE_S = 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class ThingVerdict:
    """What a clip confirms of one thing that was asked for.

    Attributes:
        colour: Whether there is a thing of its colour, and there are no more things than asked for:
            among the many that are seen in noise, any colour is.
        shape: Whether that has its shape.
        motion: Whether it moves as asked.
        pitch: Whether the tone of its colour is heard, and no other is louder than those of all
            things asked for.
        size: Whether it has its size; ``None`` if that was not asked for.
    """

    colour: bool
    shape: bool
    motion: bool
    pitch: bool
    size: bool | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What a clip confirms of what was asked for.

    Attributes:
        things: One for each thing asked for, in its order.
        count: Whether there are as many things as asked for.
        background: Whether it has its colour; ``None`` if that was not asked for.
        synchrony_s: Of a bounce and the click that is nearest to it, or a click and its bounce, how
            far the worst pair is apart; infinite if either is missing; ``None`` if nothing was to
            bounce.
        picture: What is seen.
        sound: What is heard.
    """

    things: tuple[ThingVerdict, ...]
    count: bool
    background: bool | None
    synchrony_s: float | None
    picture: Picture
    sound: Heard

    @property
    def right(self) -> bool:
        """Whether all colours, shapes and motions are as asked, and there is nothing else."""
        return self.count and all(it.colour and it.shape and it.motion for it in self.things)


def compare(asked: Asked, frames: Tensor, fps: float, samples: Tensor, rate: int) -> Verdict:
    """Measure a clip, and hold it against what was asked for.

    Args:
        asked: What was asked for.
        frames: RGB ``uint8`` ``(T, H, W, 3)``.
        fps: Frames per second.
        samples: Float stereo ``(2, N)``.
        rate: Samples per second.
    """
    picture, sound = measure_picture(frames, fps), measure_sound(samples, rate)
    scene = asked.scene
    pairs = _pairs(scene.things, picture.things)
    loudest = [tone.colour for tone in sound.tones[: len(scene.things)]]
    crowded = len(picture.things) > len(scene.things)
    return Verdict(
        things=tuple(_judge(thing, seen, loudest, asked, crowded=crowded) for thing, seen in pairs),
        count=len(picture.things) == len(scene.things),
        background=picture.background == scene.background if asked.names_background else None,
        synchrony_s=_synchrony(pairs, sound.clicks_s, len(frames) / fps),
        picture=picture,
        sound=sound,
    )


def _pairs(
    things: Sequence[Thing], seen: Sequence[SeenThing]
) -> list[tuple[Thing, SeenThing | None]]:
    """Each thing with the one of its colour; those left over in their order."""
    by_colour = {one.colour: one for one in seen}
    wanted = {thing.colour for thing in things}
    others = iter([one for one in seen if one.colour not in wanted])
    return [(thing, by_colour.get(thing.colour) or next(others, None)) for thing in things]


def _judge(
    thing: Thing,
    seen: SeenThing | None,
    tones: Sequence[Colour],
    asked: Asked,
    *,
    crowded: bool,
) -> ThingVerdict:
    size = seen is not None and seen.size == thing.size
    return ThingVerdict(
        colour=seen is not None and seen.colour == thing.colour and not crowded,
        shape=seen is not None and seen.shape == thing.shape,
        motion=seen is not None and seen.motion == thing.motion,
        pitch=thing.colour in tones,
        size=size if asked.names_size else None,
    )


def _synchrony(
    pairs: Sequence[tuple[Thing, SeenThing | None]], clicks: Sequence[float], duration_s: float
) -> float | None:
    jumping = [seen for thing, seen in pairs if thing.motion == "bounce"]
    if not jumping:
        return None
    bounces = [time for seen in jumping if seen for time in seen.bounces_s]
    if not bounces or not clicks:
        return math.inf
    certain = [time for time in clicks if _EDGE_S <= time <= duration_s - _EDGE_S]
    return max(
        *(min(abs(bounce - click) for click in clicks) for bounce in bounces),
        *(min(abs(bounce - click) for bounce in bounces) for click in certain),
        0.0,
    )
