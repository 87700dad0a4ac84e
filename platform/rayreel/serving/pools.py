"""What the dispatcher sees of a pool: work goes in, steps and at last results come out."""

from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from typing import Protocol

from rayreel.config.jobs import StageName
from rayreel.stages.base import RenderItem, Result


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """A batch has come so far.

    Attributes:
        stage: Where it is at work.
        step: Denoising steps that are done.
        steps: All of them; 0 where the stage has none.
        pictures: Small WebP pictures of what is being made, with the items that they are of; not
            with every step, nor of all items.
    """

    stage: StageName
    step: int = 0
    steps: int = 0
    pictures: tuple[tuple[str, bytes], ...] = ()


class PoolLost(Exception):  # noqa: N818 - an event that the dispatcher expects
    """The worker that had a batch is gone, or its pool cannot start; another try may succeed."""


class Pool(Protocol):
    """Actors that hold the same stages."""

    @property
    def name(self) -> str:
        """Name in specs, metrics and logs: a stage's, or ``fused``."""

    @property
    def stages(self) -> tuple[StageName, ...]:
        """What an actor does to a batch, in order."""

    @property
    def replicas(self) -> int:
        """Actors that are ready now."""

    def work(
        self, items: Sequence[RenderItem], *, adapters: str = ""
    ) -> AsyncGenerator[Step | list[Result], None]:
        """Have a batch worked on by one actor.

        Closing the generator stops the work within one denoising step, and waits for that.

        Args:
            items: Of one batch.
            adapters: Names their set of adapters: an actor that holds it is preferred.

        Yields:
            Steps, and as the last value one result per item, in order.

        Raises:
            PoolLost: If the actor is lost.
        """
