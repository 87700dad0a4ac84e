"""Clips of the world as files, with a list that ``rayreel encode`` reads."""

import json
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from random import Random
from typing import Literal

from torch import Tensor

from rayreel.config.request import DEFAULT_NEGATIVE_PROMPT
from rayreel.data.hashing import canonical_json, content_hash
from rayreel.media.image import write_image
from rayreel.media.mux import write_clip
from rayreel.types import Audio, Clip
from rayreel.world.draw import draw, draw_outlines
from rayreel.world.prompts import Asked, asked
from rayreel.world.sampling import Split
from rayreel.world.scene import Scene
from rayreel.world.sound import sound

MANIFEST = "clips.jsonl"
"""Name of the list of clips."""

Reference = Literal["last-frame", "outlines"]
"""What is beside a clip, for a model to learn how to follow it."""

_CLIPS = "clips"
# Compression that leaves outlines as they are.
_SHARP = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Format:
    """How large, long and fast clips are.

    Attributes:
        width: Pixels, an even number.
        height: Likewise.
        num_frames: Frames.
        fps: Frames per second.
        sample_rate_hz: Samples of the sound per second.
    """

    width: int = 128
    height: int = 128
    num_frames: int = 25
    fps: float = 24.0
    sample_rate_hz: int = 24000

    def __post_init__(self) -> None:
        """Raise ``ValueError`` for what no file can have."""
        for name in ("width", "height"):
            length = getattr(self, name)
            if length < 2 or length % 2:
                near = max(2, length // 2 * 2)
                raise ValueError(
                    f"{name}={length} is no even number; nearest are {near}, {near + 2}"
                )
        if self.num_frames < 1:
            raise ValueError(f"num_frames={self.num_frames}: expected at least 1")

    def drawn(self, scene: Scene) -> Tensor:
        """Frames of a scene, as ``draw`` returns them."""
        return draw(
            scene, width=self.width, height=self.height, num_frames=self.num_frames, fps=self.fps
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Mixture:
    """Which clips there are.

    Attributes:
        seed: What they depend on.
        split: Which combinations of colour, shape and motion there may be.
        new: Whether each clip has the new colour or shape.
        loosely: Share of clips whose captions are put as people may put them.
        wordless: Share of clips whose captions say nothing of them: the negative prompt that
            requests have by default, so that a model learns what guidance leads away from.
        form: Size and length.
        halved: Share of clips that are half as wide and high, as the first of two stages makes
            them.
        reference: What is there of each clip as well: its last frame as an image, for a model to
            learn how a clip leads up to one, or the moving outlines of its things, white on black.
    """

    seed: int = 0
    split: Split = "train"
    new: bool = False
    loosely: float = 0.0
    wordless: float = 0.0
    form: Format = field(default_factory=Format)
    halved: float = 0.0
    reference: Reference | None = None

    def __post_init__(self) -> None:
        """Raise ``ValueError`` for a size that has no half."""
        for name in ("width", "height"):
            length = getattr(self.form, name)
            if self.halved and length % 4:
                near = max(4, length // 4 * 4)
                raise ValueError(
                    f"{name}={length} has no even half for clips of half the size; nearest are "
                    f"{near}, {near + 4}"
                )

    def form_of(self, name: str) -> Format:
        """Size and length of the clip of a name."""
        if Random(f"{name}/size").random() >= self.halved:
            return self.form
        return replace(self.form, width=self.form.width // 2, height=self.form.height // 2)


def make_clip(scene: Scene, form: Format) -> Clip:
    """A scene with its sound, as long as its frames."""
    rate = form.sample_rate_hz
    samples = sound(scene, seconds=form.num_frames / form.fps, rate=rate)
    return Clip(
        frames=form.drawn(scene), fps=form.fps, audio=Audio(waveform=samples, sample_rate_hz=rate)
    )


def write_outlines(path: Path, scene: Scene, form: Format) -> None:
    """Write the moving outlines of a scene's things as a silent MP4."""
    frames = draw_outlines(
        scene, width=form.width, height=form.height, num_frames=form.num_frames, fps=form.fps
    )
    write_clip(path, Clip(frames=frames, fps=form.fps, audio=None), crf=_SHARP)


def write_clips(
    folder: Path,
    count: int,
    mixture: Mixture | None = None,
    *,
    done: Callable[[], None] = lambda: None,
) -> Path:
    """Write clips as MP4 with captions; those that are there already are kept.

    The first clips stay the same as the count grows. The list is written when all clips are there.

    Args:
        folder: Where to write; made if it is missing.
        count: Clips.
        mixture: Which; by default 128x128 pixels from the training split.
        done: Called after each clip.

    Returns:
        The list: JSONL with ``id``, ``media_path``, ``caption`` and ``scene``, and where there
        are references ``reference_video``.

    Raises:
        OSError: If a file cannot be written.
    """
    mixture = mixture or Mixture()
    (folder / _CLIPS).mkdir(parents=True, exist_ok=True)
    kind = f"{mixture.split}-new" if mixture.new else mixture.split
    wanted = {
        f"{kind}-{mixture.seed}-{index:06d}": asked(
            f"{kind}/{mixture.seed}/{index}",
            split=mixture.split,
            new=mixture.new,
            loosely=mixture.loosely,
        )
        for index in range(count)
    }
    forms = {name: mixture.form_of(name) for name in wanted}
    paths = {name: f"{_CLIPS}/{name}-{_hash(one, forms[name])}.mp4" for name, one in wanted.items()}
    # Encoding leaves Python's lock to others.
    executor = ThreadPoolExecutor(os.cpu_count())
    try:
        for _ in executor.map(
            lambda name: _write(
                folder / paths[name], wanted[name].scene, forms[name], mixture.reference
            ),
            wanted,
        ):
            done()
    finally:
        executor.shutdown(cancel_futures=True)
    manifest = folder / MANIFEST
    with _replaced(manifest).open("w", encoding="utf-8") as file:
        for name, one in wanted.items():
            said = Random(f"{name}/words").random() >= mixture.wordless
            row = {
                "id": name,
                "media_path": paths[name],
                "caption": one.prompt if said else DEFAULT_NEGATIVE_PROMPT,
                "scene": one.scene.model_dump(),
            }
            if mixture.reference:
                row["reference_video"] = str(_beside(Path(paths[name]), mixture.reference))
            file.write(f"{json.dumps(row)}\n")
    return _replaced(manifest).replace(manifest)


def _write(path: Path, scene: Scene, form: Format, reference: Reference | None) -> None:
    if not path.exists():
        write_clip(_replaced(path), make_clip(scene, form))
        _replaced(path).replace(path)
    if reference is None or (beside := _beside(path, reference)).exists():
        return
    if reference == "last-frame":
        write_image(_replaced(beside), form.drawn(scene)[-1])
    else:
        write_outlines(_replaced(beside), scene, form)
    _replaced(beside).replace(beside)


def _beside(clip: Path, reference: Reference) -> Path:
    suffix = ".png" if reference == "last-frame" else "-outlines.mp4"
    return clip.with_name(f"{clip.stem}{suffix}")


def _replaced(path: Path) -> Path:
    """Where a file is written before it is whole."""
    return path.with_name(f"~{path.name}")


def _hash(one: Asked, form: Format) -> str:
    """Differs for clips that differ, so that none is kept for another."""
    return content_hash(canonical_json([one.scene.model_dump(), asdict(form)]))[:8]
