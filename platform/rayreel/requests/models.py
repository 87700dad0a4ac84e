"""The model that requests are for, checked before any of them."""

import logging

from rayreel.checkpoints.compatibility import text_encoder_warning
from rayreel.checkpoints.files import ModelFiles
from rayreel.checkpoints.networks import check_networks
from rayreel.checkpoints.tiny import locate_model
from rayreel.config.jobs import ModelChoice
from rayreel.errors import CheckpointError
from rayreel.pipelines.image import image_faults

log = logging.getLogger(__name__)


def opened_model(model: ModelChoice) -> ModelFiles:
    """A model that whoever started this process has checked, which takes seconds.

    Raises:
        CheckpointError: If its checkpoint or an adapter is missing or damaged.
    """
    return ModelFiles(locate_model(model))


def checked_model(model: ModelChoice) -> ModelFiles:
    """A model whose headers are read, and no weight.

    Raises:
        CheckpointError: If weight files are missing, damaged or do not fit their architecture.
    """
    files = opened_model(model)
    check_networks(files)
    if warning := text_encoder_warning(files.transformer_file, files.text_encoder):
        log.warning("%s", warning)
    return files


def rendering_model(model: ModelChoice) -> ModelFiles:
    """The same of a model that makes clips, with what it makes single pictures with.

    Raises:
        CheckpointError: As of ``checked_model``, and for an image model that cannot be used.
    """
    files = checked_model(model)
    if files.spec.image_model and (found := image_faults(files.spec.image_model)):
        raise CheckpointError("\n".join(found))
    return files
