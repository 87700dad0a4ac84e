"""Runs at Weights & Biases, from one process or from several that went on one after another."""

import logging
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from uuid import uuid4

from rayreel.config.train import TrainSpec, WandbSpec
from rayreel.data.storage import Storage
from rayreel.training.tracking.service_ids import kept_id
from rayreel.training.tracking.tracker import Status, scalars

log = logging.getLogger(__name__)

# A run that is recorded on disk cannot say how far it came.
_SENT = "last-step"


class WandbRun:
    """A run; steps that it has already are not sent again."""

    def __init__(self, spec: TrainSpec, settings: WandbSpec, storage: Storage) -> None:
        """Begin the run, or go on with it.

        Args:
            spec: What is trained.
            settings: Where to.
            storage: The run directory, on disk if the run is recorded offline.

        Raises:
            Exception: Whatever the package raises where it cannot.
        """
        import wandb  # noqa: PLC0415 - an extra, which takes seconds

        self._wandb, self._settings = wandb, settings
        self._temporary = tempfile.TemporaryDirectory()
        folder = storage.local_path("wandb")
        self._sent_file = folder / _SENT if folder else None
        if folder:
            folder.mkdir(parents=True, exist_ok=True)
        self._run = wandb.init(
            project=settings.project,
            entity=settings.entity,
            tags=list(settings.tags),
            mode=settings.mode,
            id=kept_id(storage, "wandb", lambda: uuid4().hex[:12]),
            resume="allow",
            name=spec.output.rstrip("/").rpartition("/")[2],
            config=spec.model_dump(mode="json"),
            dir=folder.parent if folder else self._temporary.name,
            settings=wandb.Settings(silent=True, console="off"),
        )
        # Clips of a step come when later ones are there already.
        self._run.define_metric("validation/step", hidden=True)
        self._run.define_metric("validation/*", step_metric="validation/step")
        self._sent = max(int(self._run.step) - 1, self._recorded())
        log.info(
            "this run at Weights & Biases: %s",
            self._run.url if settings.mode == "online" else self._run.dir,
        )

    def lines(self, lines: Sequence[Mapping[str, Any]]) -> None:
        """Send steps."""
        for line in lines:
            if line["step"] > self._sent:
                self._sent = line["step"]
                if self._sent_file and self._settings.mode == "offline":
                    self._sent_file.write_text(str(self._sent))
                self._run.log(scalars(line), step=line["step"], commit=True)

    def clips(self, step: int, files: Mapping[str, Path]) -> None:
        """Send clips, with the next step."""
        if self._settings.clips:
            shown = {f"validation/{name}": self._media(path) for name, path in files.items()}
            self._run.log({"validation/step": step, **shown}, commit=False)

    def close(self, status: Status) -> None:
        """Send what is left."""
        self._run.finish(exit_code=int(status != "finished"))
        self._temporary.cleanup()

    def _media(self, path: Path) -> Any:  # noqa: ANN401 - the package is not typed
        audio = self._wandb.Audio
        kinds = {".png": self._wandb.Image, ".wav": audio, ".m4a": audio}
        return kinds.get(path.suffix, self._wandb.Video)(str(path))

    def _recorded(self) -> int:
        file = self._sent_file
        return int(file.read_text()) if file and file.exists() else 0
