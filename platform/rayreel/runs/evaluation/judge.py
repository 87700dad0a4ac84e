"""Whether a clip shows and sounds like what was asked for, as verdicts by attribute."""

import math
from dataclasses import dataclass, field
from functools import cache
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from rayreel.config.evaluate import BoundsSpec, Given
from rayreel.data.hashing import canonical_json, content_hash
from rayreel.errors import MediaError
from rayreel.media.similarity import psnr_db
from rayreel.media.video import read_clip
from rayreel.runs.evaluation.judged import JudgedClip, Seen
from rayreel.types import Audio, Clip
from rayreel.world import measure
from rayreel.world.draw import draw
from rayreel.world.measure.compare import Verdict, compare
from rayreel.world.motion import track
from rayreel.world.palette import BACKGROUND_RGB
from rayreel.world.prompts import Asked
from rayreel.world.scene import Background, Thing

_OF_THINGS = ("colour", "shape", "motion", "size", "pitch")
# Of silence, where a clip has no sound.
_RATE_HZ = 24000

MOST_DB = 99.0
"""Of equal frames: JSON has no infinite numbers."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """What a clip is held against.

    Attributes:
        suite: Name of the suite.
        name: Of the row.
        asked: What the clip has to show.
        identity: Of the clip.
        sound: Whether it has to sound.
        given: What its request took from the drawn scene.
        parts: Stretches that are judged one by one.
        bounds: How far off something may be.
    """

    suite: str
    name: str
    asked: Asked
    identity: str
    sound: bool = True
    given: tuple[Given, ...] = ()
    parts: int = 1
    bounds: BoundsSpec = field(default_factory=BoundsSpec)

    @property
    def key(self) -> str:
        """Identity of all that verdicts depend on."""
        asked = self.asked
        return content_hash(
            *(self.identity, self.suite, self.name, _measurers()),
            canonical_json(
                [
                    asked.scene.model_dump(),
                    [asked.names_size, asked.names_background],
                    [self.sound, self.given, self.parts],
                    self.bounds.model_dump(),
                ]
            ),
        )

    def faulty(self, fault: str, path: str | None = None) -> JudgedClip:
        """The line of a clip that there is nothing to judge of."""
        return JudgedClip(
            key=self.key,
            suite=self.suite,
            name=self.name,
            prompt=self.asked.prompt,
            asked=self.asked.scene,
            path=path,
            fault=fault,
        )


def judge_file(case: Case, source: str, path: str) -> JudgedClip:
    """Judge a clip by its file alone.

    Args:
        case: What it is held against.
        source: Path or URI of the file.
        path: The same in the run directory.
    """
    try:
        clip = read_clip(source)
    except MediaError as error:
        return case.faulty(str(error), path)
    return judge(case, clip, path)


def judge(case: Case, clip: Clip, path: str) -> JudgedClip:
    """Judge a clip.

    Args:
        case: What it is held against.
        clip: Its frames, and its sound in stereo.
        path: Where a person finds it, in the run directory.
    """
    asked, scene = case.asked, case.asked.scene
    parts = [compare(asked, *_part(clip, *ends)) for ends in _ends(clip, case.parts)]
    kinds = [name for name in _OF_THINGS if name != "pitch" or case.sound]
    things = [
        {
            name: all(found)
            for name in kinds
            if None not in (found := _verdicts(name, place, thing, parts))
        }
        for place, thing in enumerate(scene.things)
    ]
    verdicts = {name: all(one[name] for one in things) for name in things[0]}
    if asked.names_background:
        verdicts["background"] = all(part.background for part in parts)
    verdicts["count"] = all(part.count for part in parts)
    verdicts["right"] = all(part.right for part in parts)
    numbers = _kept(case, clip) | _distance(case, clip, parts)
    for name in case.given:
        if name == "reference":
            verdicts[name] = numbers.get("distance", math.inf) <= case.bounds.distance
        else:
            verdicts[name] = numbers[f"{name}_things_psnr_db"] >= case.bounds.psnr_db
    apart = [part.synchrony_s for part in parts if part.synchrony_s is not None]
    if case.sound and apart:
        verdicts["synchrony"] = max(apart) <= case.bounds.synchrony_s
        if math.isfinite(max(apart)):
            numbers["synchrony_ms"] = 1000 * max(apart)
    return JudgedClip(
        key=case.key,
        suite=case.suite,
        name=case.name,
        prompt=asked.prompt,
        asked=scene,
        path=path,
        verdicts=verdicts,
        things=tuple(things),
        numbers=numbers,
        seen=tuple(_seen(part) for part in parts),
    )


def _verdicts(name: str, place: int, thing: Thing, parts: list[Verdict]) -> list[bool | None]:
    """Of one attribute of one thing, in each part that says something of it."""
    # A thing has grown out of the size that it was asked for with.
    first_alone = name == "size" and thing.motion == "grow"
    return [getattr(part.things[place], name) for part in parts[: 1 if first_alone else None]]


def _ends(clip: Clip, count: int) -> list[tuple[int, int]]:
    """First frame, and the one after the last, of equal stretches."""
    frames = len(clip.frames)
    ends = [round(frames * part / count) for part in range(count + 1)]
    return [(start, end) for start, end in pairwise(ends) if start < end]


def _part(clip: Clip, start: int, end: int) -> tuple[Tensor, float, Tensor, int]:
    """Frames with their rate, and samples with theirs, of a stretch."""
    sound = clip.audio or Audio(waveform=torch.zeros(2, 0), sample_rate_hz=_RATE_HZ)
    first, last = (round(frame / clip.fps * sound.sample_rate_hz) for frame in (start, end))
    samples = sound.waveform[:, first:last]
    # Sound may end before the picture does.
    silence = torch.zeros(2, last - first - samples.shape[1])
    return (
        clip.frames[start:end],
        clip.fps,
        torch.cat([samples, silence], dim=1),
        sound.sample_rate_hz,
    )


def _kept(case: Case, clip: Clip) -> dict[str, float]:
    """How alike given frames are to those of the clip: as a whole, and where things are.

    Most of a frame is background: without its thing, it may still be much alike.
    """
    places = {"first_frame": 0, "last_frame": -1}
    wanted = {name: place for name, place in places.items() if name in case.given}
    if not wanted:
        return {}
    scene, (count, height, width) = case.asked.scene, clip.frames.shape[:3]
    drawn = draw(scene, width=width, height=height, num_frames=count, fps=clip.fps)
    found = {}
    for name, place in wanted.items():
        frame, given = clip.frames[place], drawn[place]
        there = _about_things(given, scene.background)
        found[f"{name}_psnr_db"] = min(MOST_DB, psnr_db(frame, given))
        found[f"{name}_things_psnr_db"] = min(MOST_DB, psnr_db(frame[there], given[there]))
    return found


def _about_things(frame: Tensor, background: Background) -> Tensor:
    """Pixels of things, and those next to them: bool ``(H, W)``."""
    behind = torch.tensor(BACKGROUND_RGB[background], dtype=torch.uint8)
    covered = (frame != behind).any(-1)[None, None].float()
    return F.max_pool2d(covered, 5, stride=1, padding=2)[0, 0] > 0


def _distance(case: Case, clip: Clip, parts: list[Verdict]) -> dict[str, float]:
    """How far things are from where the reference has them; nothing where one is not seen."""
    if "reference" not in case.given:
        return {}
    found = []
    height, width = clip.frames.shape[1:3]
    for part, ends in zip(parts, _ends(clip, case.parts), strict=True):
        seen = {one.colour: one for one in part.picture.things}
        for thing in case.asked.scene.things:
            if thing.colour not in seen:
                return {}
            drawn = track(thing, np.arange(*ends) / clip.fps, aspect=width / height)
            away = np.abs(seen[thing.colour].centres - np.stack([drawn.x, drawn.y], 1))
            # What leaves the frame enters on the other side.
            away = np.minimum(away, 1 - away) * np.array([width, height]) / min(width, height)
            found.append(float(np.hypot(*away.T).mean()))
    return {"distance": sum(found) / len(found)}


def _seen(part: Verdict) -> Seen:
    return Seen(
        background=part.picture.background,
        things=tuple(
            {"colour": one.colour, "shape": one.shape, "size": one.size, "motion": one.motion}
            for one in part.picture.things
        ),
        tones=tuple(tone.colour for tone in part.sound.tones),
        bounces_s=tuple(round(t, 3) for one in part.picture.things for t in one.bounces_s),
        clicks_s=tuple(round(t, 3) for t in part.sound.clicks_s),
    )


@cache
def _measurers() -> str:
    """Identity of what measures: clips are judged again after a change of it."""
    folder = Path(measure.__path__[0])
    return content_hash(
        *(path.read_bytes() for path in [*sorted(folder.glob("*.py")), Path(__file__)])
    )
