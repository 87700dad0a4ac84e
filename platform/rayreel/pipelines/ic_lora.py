"""Video to video: an in-context adapter follows reference videos."""

from collections.abc import Iterator
from dataclasses import replace

from rayreel.checkpoints.files import ModelFiles
from rayreel.config.request import RenderRequest
from rayreel.errors import ItemError, MediaError
from rayreel.media.container import probe
from rayreel.media.image import is_still
from rayreel.pipelines import conditions
from rayreel.pipelines.base import Fault
from rayreel.pipelines.distilled import Distilled
from rayreel.pipelines.ledger import ModelLedger


class InContext(Distilled):
    """Reference videos and their adapter steer the first stage; the second has neither."""

    traits = replace(Distilled.traits, asks=("references",), takes=("images",))
    video_conditions = (conditions.references, conditions.pinned)

    @classmethod
    def faults(cls, request: RenderRequest, files: ModelFiles) -> list[Fault]:
        """Sizes that the adapter's scale does not divide; references and masks that do not fit."""
        adapters = [*files.loras, *map(files.adapter, request.loras)]
        try:
            scale, every = conditions.reference_scales(adapters)
        except ItemError as error:
            return [("loras", str(error))]
        multiple = cls.traits.stages * files.factors.height * scale
        sizes = {"width": request.width, "height": request.height}
        found = [
            (
                field,
                f"{size} is not a multiple of {multiple}, which the adapter's reference scale "
                f"{scale} needs; nearest: {max(1, round(size / multiple)) * multiple}",
            )
            for field, size in sizes.items()
            if size % multiple
        ]
        return found + list(_reference_faults(request, files.factors.time, every))

    @classmethod
    def notes(cls, request: RenderRequest, files: ModelFiles) -> list[str]:
        """References without an adapter are tokens that the model was not trained for."""
        there = request.loras or files.loras
        return [] if there else ["follows its references without an in-context adapter"]

    def second_weights(self, request: RenderRequest) -> ModelLedger:
        """Without any adapter but the distilled one."""
        return self.distilled(request, own=False)


def _reference_faults(request: RenderRequest, time_factor: int, every: int) -> Iterator[Fault]:
    for index, reference in enumerate(request.references):
        field = f"references.{index}"
        try:
            frames = min(probe(reference.path).num_frames, request.num_frames)
        except MediaError as error:
            yield f"{field}.path", str(error)
            continue
        # Latent frames behind the first one.
        later = (len(range(1, frames, every))) // time_factor
        if reference.mask is None:
            continue
        try:
            masks = 1 if is_still(reference.mask) else probe(reference.mask).num_frames
        except MediaError as error:
            yield f"{field}.mask", str(error)
            continue
        masks = min(masks, time_factor * later + 1)
        if masks > 1 and (later == 0 or (masks - 1) % later):
            yield (
                f"{field}.mask",
                f"its {masks} frames do not spread over {later + 1} latent frames; expected one "
                f"frame, or nearest: {max(1, round((masks - 1) / max(1, later))) * later + 1}",
            )
