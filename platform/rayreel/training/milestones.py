"""After which steps something is left to go on from, or to look at."""

from dataclasses import dataclass

from rayreel.config.train import TrainSpec


@dataclass(frozen=True)
class Milestones:
    """Steps that count, of a run.

    Attributes:
        spec: Of the run.
    """

    spec: TrainSpec

    def checkpoint(self, step: int) -> bool:
        """Whether there is a checkpoint after so many steps; there is one after the last."""
        return step > 0 and self._falls(step, self.spec.checkpoints.interval)

    def validation(self, step: int) -> bool:
        """Whether clips are rendered after so many steps; they are after the last."""
        if not self.spec.validation.rows:
            return False
        if step == 0:
            return self.spec.validation.initial
        return self._falls(step, self.spec.validation.interval)

    def any(self, step: int) -> bool:
        """Whether either is so."""
        return self.checkpoint(step) or self.validation(step)

    def _falls(self, step: int, interval: int | None) -> bool:
        due = interval is not None and step % interval == 0
        return due or step >= self.spec.optimization.steps
