"""A dataset on its page, with some of its samples decoded to look at."""

import json

from rayreel.config.encode import EncodeSpec
from rayreel.config.jobs import ModelChoice, StageSpec
from rayreel.config.load import parse
from rayreel.data.reader import LatentDataset
from rayreel.data.storage import Storage
from rayreel.errors import SpecError
from rayreel.pipelines.devices import choose_device
from rayreel.pipelines.ledger import ModelLedger
from rayreel.requests.spec import read_model
from rayreel.runs.encoding.report.decoded import check_clips
from rayreel.runs.encoding.report.page import PAGE_FILE, write_page

_RUN_FILE = "run.json"


def inspect_dataset(uri: str, *, model: str | None = None, count: int = 12) -> str:
    """Decode samples of a dataset, compare them with their sources, and write its page.

    Args:
        uri: Folder or URI of the dataset.
        model: What decodes: ``tiny``, a folder of weight files, or a model spec; by default the
            model that ``run.json`` says encoded it.
        count: How many samples are decoded.

    Returns:
        Path or URI of the page.

    Raises:
        SpecError: If no model is named, or it has other latents.
        CheckpointError: If weight files are missing or wrong.
        RayreelError: If there is no dataset, or it is damaged.
    """
    storage = Storage(uri)
    dataset = LatentDataset(uri)
    spec = _spec(storage)
    ledger = ModelLedger(_model(storage, spec, model), choose_device(StageSpec()))
    clips = check_clips(dataset, ledger, storage, spec=spec, count=count)
    write_page(
        storage,
        title=f"Dataset {uri.rstrip('/').rpartition('/')[2]}",
        summary=f"{dataset.info.num_samples:,} samples, of which {len(clips)} were decoded again",
        info=dataset.info,
        clips=clips,
    )
    return storage.join(PAGE_FILE)


def _model(storage: Storage, spec: EncodeSpec | None, named: str | None) -> ModelChoice:
    if named is not None:
        return read_model(named).model
    if spec is None:
        raise SpecError(
            f"{storage.join(_RUN_FILE)} does not say what encoded the dataset; expected a model to "
            "decode with: tiny, a folder of weight files, or a model spec"
        )
    return spec.model


def _spec(storage: Storage) -> EncodeSpec | None:
    """Of the job that made a dataset; ``None`` where it was not made by one."""
    if not storage.exists(_RUN_FILE):
        return None
    where = storage.join(_RUN_FILE)
    try:
        values = json.loads(storage.read_text(_RUN_FILE)).get("spec")
    except (ValueError, AttributeError) as error:
        raise SpecError(f"{where} is damaged: {error}") from error
    return None if values is None else parse(values, EncodeSpec, where=where)
