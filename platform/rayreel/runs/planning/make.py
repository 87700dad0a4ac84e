"""Puts a plan together from a list's shapes, what is known of their costs, and the cluster."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from rayreel.checkpoints.files import ModelFiles
from rayreel.config.jobs import RenderSpec, StageName
from rayreel.config.request import RenderRequest
from rayreel.requests.costs import CostBook, Item
from rayreel.requests.shapes import Shape, shape_of
from rayreel.runs.planning.batch_sizes import LARGEST
from rayreel.runs.planning.options import Cluster, Option, Planner, Pooled
from rayreel.runs.planning.plan import Plan, PoolPlan, ShapePlan, StagePlan
from rayreel.runs.planning.replicas import makespan, pool_replicas

_MOST_MEASURED = 4
_HOUR_S = 3600


@dataclass(frozen=True, kw_only=True)
class Counts:
    """What a list holds.

    Attributes:
        rows: Rows.
        clips: Distinct clips.
        finished: Clips that need not be rendered.
        texts_known: Distinct texts that are encoded already.
        texts_new: Distinct texts to encode.
        texts_written: Of these, to be written out first.
        text_bytes: Size of an encoded text, where it is known.
    """

    rows: int
    clips: int
    finished: int
    texts_known: int
    texts_new: int
    texts_written: int = 0
    text_bytes: float = 0.0


def count_shapes(
    requests: Sequence[tuple[RenderRequest, int]], files: ModelFiles
) -> list[tuple[Shape, int]]:
    """Shapes of resolved requests and how many clips have them, the most frequent one first."""
    shapes: dict[str, Shape] = {}
    counts: dict[str, int] = {}
    for request, count in requests:
        shape = shape_of(request, files)
        shapes.setdefault(shape.name, shape)
        counts[shape.name] = counts.get(shape.name, 0) + count
    ordered = sorted(shapes, key=lambda name: (-counts[name], name))
    return [(shapes[name], counts[name]) for name in ordered]


def unmeasured(
    book: CostBook,
    shapes: Sequence[tuple[Shape, int]],
    devices: Mapping[StageName, str],
    most: int = _MOST_MEASURED,
) -> list[Shape]:
    """Shapes to render a clip of before a plan is made.

    Args:
        book: What is known.
        shapes: Of ``count_shapes``.
        devices: Of the stages, as ``device_label`` says them.
        most: Frequent shapes that are measured each; the others are scaled from them.

    Returns:
        Of the most frequent shapes, those that were not measured; and of the others, those without
        which nothing would be known of some stage.
    """
    measured = {(cost.stage, cost.device, cost.shape) for cost in book.stages}
    scalable = {(cost.stage, cost.device, cost.kind) for cost in book.stages}
    found: list[Shape] = []
    for index, (shape, _) in enumerate(shapes):
        stages = [(stage, devices[stage]) for stage in shape.work]
        new = any((*stage, shape.name) not in measured for stage in stages)
        kinds = {(*stage, shape.kind) for stage in stages}
        if kinds - scalable or (new and index < most):
            found.append(shape)
            scalable |= kinds
    return found


def make_plan(
    spec: RenderSpec,
    files: ModelFiles,
    shapes: Sequence[tuple[Shape, int]],
    counts: Counts,
    cluster: Cluster,
    book: CostBook,
) -> Plan:
    """What a run is expected to come to.

    Args:
        spec: Placement, limits of the pools and batch sizes.
        files: The model; only headers are read.
        shapes: Of ``count_shapes``, for the clips that are left.
        counts: What the list holds.
        cluster: What there is to render on.
        book: What is known of costs.

    Raises:
        ValueError: If no clip is left.
    """
    if not shapes:
        raise ValueError("no clip is left, so there is nothing to plan; expected one shape or more")
    planner = Planner(spec, files, shapes, cluster, book)
    placement, reason, option = planner.choose()
    notes = [*option.doubts, *([option.unfit] if option.unfit else [])]
    left = sum(count for _, count in shapes)
    text, text_s = _text_pass(planner, counts, option, notes) if counts.texts_new else (None, 0.0)
    pools = list(_pools(option))
    render_s = _render_seconds(option, shapes, left)
    if render_s is not None:
        render_s += max(_start(book, pool.name, notes) for pool in pools)
    sizes = [(*book.file_bytes(shape), count) for shape, count in shapes]
    kept = [
        (s, n) for s, n in shapes if spec.keep_latents or ("stage1" in s.work and not s.batched)
    ]
    return Plan(
        rows=counts.rows,
        clips=counts.clips,
        finished=counts.finished,
        left=left,
        texts_known=counts.texts_known,
        texts_new=counts.texts_new,
        shapes=tuple(
            ShapePlan(name=shape.name, clips=count, batch=batch.size, reason=batch.reason)
            for (shape, count), batch in zip(shapes, option.batches, strict=True)
        ),
        placement=placement,
        reason=reason,
        text=text,
        pools=tuple(pools),
        throughput=option.found.throughput if option.found and option.known else None,
        text_s=text_s,
        render_s=render_s,
        gpu_hours=_gpu_hours([([text] if text else [], text_s), (pools, render_s)]),
        clip_bytes=sum(num_bytes * count for num_bytes, _, count in sizes),
        clip_bytes_measured=all(basis == "measured" for _, basis, _ in sizes),
        text_bytes=counts.texts_new * counts.text_bytes,
        latent_bytes=sum(shape.latent_bytes * count for shape, count in kept),
        notes=tuple(notes),
    )


def _text_pass(
    planner: Planner, counts: Counts, option: Option, notes: list[str]
) -> tuple[PoolPlan, float | None]:
    """The pool of the text pass, which has the cluster to itself, and how long it takes."""
    choice = planner.spec.stage("text")
    batch = LARGEST if choice.batch_size == "auto" else choice.batch_size
    device = planner.cluster.labels["text"]
    plain = planner.book.cost(Item.text(), device, batch)
    written = planner.book.cost(Item.text(written=True), device, batch)
    parts = [(plain, counts.texts_new - counts.texts_written), (written, counts.texts_written)]
    needed = [(cost, count) for cost, count in parts if count]
    total = sum(count * (cost.seconds or 0.0) for cost, count in needed)
    unknown = any(cost.seconds is None for cost, _ in needed)
    pool = Pooled("text", "text", "text", choice)
    # Unknown texts count as a second: actors are counted, and no rate told.
    seconds = 1.0 if unknown or not total else total / counts.texts_new
    load = planner.load(pool, seconds, option.needs, planner.cpus([pool]))
    found = pool_replicas(load, planner.cluster.room, math.ceil(counts.texts_new / batch))
    stage = StagePlan(
        name="text",
        seconds=None if unknown else total / counts.texts_new,
        basis="unknown" if unknown else "measured",
    )
    replicas = found.replicas["text"] if found else load.least
    plan = PoolPlan(
        name="text",
        stages=(stage,),
        replicas=replicas,
        cpus=load.cpus,
        gpus=load.gpus,
        batches=(batch,),
        rate=None if unknown else replicas / seconds,
        utilisation=None if unknown else 1.0,
    )
    if unknown or found is None:
        notes.append("nothing is known of the text pass")
        return plan, None
    took = makespan([load], found.replicas, clips=counts.texts_new, batch=batch)
    return plan, took + _start(planner.book, "text", notes)


def _pools(option: Option) -> Iterator[PoolPlan]:
    found, known = option.found, option.known
    batches = tuple(sorted({batch.size for batch in option.batches}))
    for load in option.loads:
        names = load.name.split("+")
        replicas = found.replicas[load.name] if found else load.least
        yield PoolPlan(
            name=load.name,
            stages=tuple(stage for stage in option.stages if stage.name in names),
            replicas=replicas,
            cpus=load.cpus,
            gpus=load.gpus,
            batches=batches,
            rate=replicas / load.seconds if known else None,
            utilisation=found.utilisation[load.name] if found and known else None,
            bottleneck=bool(found and known and found.bottleneck == load.name),
        )


def _render_seconds(option: Option, shapes: Sequence[tuple[Shape, int]], left: int) -> float | None:
    """Length of the render pass without its start."""
    if option.found is None or not option.known:
        return None
    pairs = zip(shapes, option.batches, strict=True)
    batches = sum(math.ceil(count / batch.size) for (_, count), batch in pairs)
    replicas = option.found.replicas
    return makespan(option.loads, replicas, clips=left, batch=left / batches)


def _start(book: CostBook, pool: str, notes: list[str]) -> float:
    if pool not in book.starts:
        notes.append(f"how long {pool} takes to start is not known, and counts as nothing")
    return book.starts.get(pool, 0.0)


def _gpu_hours(passes: Sequence[tuple[Sequence[PoolPlan], float | None]]) -> float | None:
    """GPUs that actors hold while their pass lasts, at work or not."""
    hours = 0.0
    for pools, seconds in passes:
        if seconds is None:
            return None
        hours += sum(pool.replicas * pool.gpus for pool in pools) * seconds / _HOUR_S
    return hours
