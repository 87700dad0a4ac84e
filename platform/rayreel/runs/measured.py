"""What the clips of a run took, for the plans of later ones."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from rayreel.checkpoints.files import ModelFiles
from rayreel.cluster.pool import Pool
from rayreel.config.jobs import StageName
from rayreel.requests.costs import CostBook, Item, Observation
from rayreel.requests.shapes import DENOISING, shape_of
from rayreel.runs.planning.plan import Actual
from rayreel.stages.base import RenderItem, TextItem

# A sample tells as much as a million.
_MOST = 20_000


@dataclass
class Measured:
    """Collects seconds and sizes while a run goes on.

    Attributes:
        files: The model.
        devices: Names of the stages' devices, as costs are kept under them.
        clips: How many were made.
        num_bytes: Of all of them.
        seconds: That actors were at each stage.
        texts: How many were encoded.
        passes: Seconds of wall time, by pass.
    """

    files: ModelFiles
    devices: Mapping[StageName, str]
    clips: int = 0
    num_bytes: int = 0
    texts: int = 0
    seconds: dict[str, float] = field(default_factory=dict)
    passes: dict[str, float] = field(default_factory=dict)
    _observations: list[Observation] = field(default_factory=list)
    _sizes: list[tuple[str, int]] = field(default_factory=list)
    _starts: dict[str, float] = field(default_factory=dict)

    def text(self, item: TextItem, batch: int) -> None:
        """A text was encoded."""
        self.texts += 1
        self._spend(item.seconds)
        for _, seconds in item.seconds:
            kind = Item.text(written=item.request is not None)
            self._observe(kind, "text", batch, seconds)

    def clip(self, item: RenderItem) -> None:
        """A clip was made."""
        assert item.output is not None, "it is finished"
        own = [(stage, seconds) for stage, seconds in item.seconds if stage != "text"]
        self.clips += 1
        self.num_bytes += item.output.num_bytes
        self._spend(own)
        # What had to get along with less memory tells nothing of what is usual.
        if item.memory or len(self._observations) >= _MOST:
            return
        shape = shape_of(item.request, self.files)
        self._sizes.append((shape.name, item.output.num_bytes))
        seconds = dict(own)
        for stage in shape.work:
            if stage in seconds:
                batch = (item.batch or 1) if stage in DENOISING else 1
                self._observe(Item.clip(stage, shape), stage, batch, seconds[stage])

    def started(self, pools: Sequence[str], began: float, worked_s: float) -> None:
        """The first result of a pass is there.

        Args:
            pools: Of the pass.
            began: When it began, by ``time.monotonic``.
            worked_s: What of the time since then went into the result.
        """
        waited = max(0.0, time.monotonic() - began - worked_s)
        for pool in pools:
            self._starts.setdefault(pool, waited)

    def spent(self, name: str, seconds: float) -> None:
        """A pass took so long, beside what it took in waves before."""
        self.passes[name] = self.passes.get(name, 0.0) + seconds

    def book(self) -> CostBook:
        """What is known by now."""
        return CostBook.of(self._observations, self._sizes, self._starts)

    def actual(self, pools: Sequence[Pool]) -> Actual:
        """What the run came to, as plans are compared with.

        Args:
            pools: Of the render pass.
        """
        per_clip = max(1, self.clips)
        stages = {stage: took / per_clip for stage, took in self.seconds.items() if stage != "text"}
        if self.texts:
            stages = {"text": self.seconds["text"] / self.texts, **stages}
        render_s = self.passes.get("render", 0.0)
        gpus = sum(pool.replicas * pool.gpus for pool in pools)
        return Actual(
            clips=self.clips,
            stages=stages,
            throughput=self.clips / render_s if render_s else None,
            text_s=self.passes.get("text", 0.0),
            render_s=render_s,
            gpu_hours=gpus * render_s / 3600,
            clip_bytes=self.num_bytes,
        )

    def _spend(self, seconds: Sequence[tuple[str, float]]) -> None:
        for stage, took in seconds:
            self.seconds[stage] = self.seconds.get(stage, 0.0) + took

    def _observe(self, item: Item, stage: StageName, batch: int, seconds: float) -> None:
        if len(self._observations) < _MOST and stage in self.devices:
            device = self.devices[stage]
            self._observations.append(
                Observation(item=item, device=device, batch=batch, seconds=seconds)
            )
