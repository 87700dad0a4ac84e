"""What a run is expected to come to, from its list, its cluster and what earlier clips took."""

import logging
from collections.abc import Mapping
from typing import Any, get_args

import psutil

from rayreel.checkpoints.files import ModelFiles
from rayreel.cluster.connect import Capacity, accelerator
from rayreel.config.jobs import RenderSpec, StageName, StageSpec
from rayreel.data.storage import Storage
from rayreel.data.store import RecordStore
from rayreel.pipelines.devices import Device
from rayreel.pipelines.texts import TextStore
from rayreel.requests.costs import CostBook
from rayreel.runs.left import Left
from rayreel.runs.planning.make import Counts, count_shapes, make_plan
from rayreel.runs.planning.options import Cluster
from rayreel.runs.planning.plan import Plan
from rayreel.runs.planning.replicas import Room
from rayreel.runs.requests import RowPlan
from rayreel.stages.text import is_written_before, needed_texts

# Bytes of a number in a stored text.
_TEXT_DTYPE_BYTES = 2
_TYPICAL_TOKENS = 128

log = logging.getLogger(__name__)


def forecast(
    spec: RenderSpec,
    files: ModelFiles,
    rows: RowPlan,
    left: Left,
    cluster: Cluster,
    book: CostBook,
) -> Plan:
    """The plan of what a run has still to do; something must be left.

    Args:
        spec: The job.
        files: Its model; only headers are read.
        rows: Its list.
        left: What is not finished.
        cluster: What there is to render on.
        book: What is known of costs.
    """
    known, new, written = _texts(spec, files, rows, left)
    counts = Counts(
        rows=len(rows),
        clips=rows.num_clips,
        finished=rows.num_clips - left.clips,
        texts_known=known,
        texts_new=new + written,
        texts_written=written,
        text_bytes=_text_bytes(files),
    )
    return make_plan(spec, files, count_shapes(left.shapes(), files), counts, cluster, book)


def cluster_of(free: Capacity, devices: Mapping[StageName, Device]) -> Cluster:
    """What a connected cluster has, as plans take it.

    Args:
        free: Its resources.
        devices: Of the stages.
    """
    host = psutil.virtual_memory().total
    sizes, hardware = {"cpu": host}, "cuda"
    if found := accelerator(free):
        hardware, sizes["cuda"] = found
    nodes = tuple((node.cpus, node.gpus) for node in free.nodes)
    room = Room(cpus=free.cpus, gpus=free.gpus, nodes=nodes, host_bytes=host)
    return Cluster(room=room, devices=devices, device_bytes=sizes, hardware=hardware)


def placed(spec: RenderSpec, plan: Plan) -> RenderSpec:
    """The job with the placement and the actors of its plan, where it leaves them open."""
    if spec.placement != "auto":
        return spec
    log.info("placement %s: %s", plan.placement, plan.reason)
    pools = [*plan.pools, *([plan.text] if plan.text else [])]
    update: dict[str, Any] = {"placement": plan.placement}
    if plan.placement == "fused":
        update["workers"] = _with_actors(spec.workers, plan.pools[0].replicas)
    else:
        update["stages"] = spec.stages | {
            name: _with_actors(spec.stages.get(name, StageSpec()), pool.replicas)
            for name in get_args(StageName)
            for pool in pools
            if pool.name == name
        }
    return spec.model_copy(update=update)


def _with_actors(choice: StageSpec, count: int) -> StageSpec:
    most = max(count, choice.max_replicas or count)
    return StageSpec.model_validate(
        choice.model_dump(exclude_unset=True) | {"replicas": count, "max_replicas": most}
    )


def _texts(spec: RenderSpec, files: ModelFiles, rows: RowPlan, left: Left) -> tuple[int, int, int]:
    """Distinct texts that are in the store, that are not, and that are written first."""
    records = RecordStore(Storage(spec.store or spec.output))
    writes = any(is_written_before(request) for request, _ in left.shapes())
    if left.clips == rows.num_clips and not writes and records.is_empty():
        return 0, rows.num_texts, 0
    texts: set[str] = set()
    written = 0
    for row in left.rows():
        texts.update(needed_texts(row.request, files.factors.time))
        written += is_written_before(row.request)
    known = len(TextStore(records, files).known(texts))
    return known, len(texts) - known, written


def _text_bytes(files: ModelFiles) -> float:
    """Of a stored text; the first generation has the same features for both streams."""
    text = files.text
    width = text.video.width + (text.audio.width if text.feature_version == "v2" else 0)
    return float(width * _TYPICAL_TOKENS * _TEXT_DTYPE_BYTES)
