"""The render job against the same work done another way."""

import os
import time
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from rayreel.checkpoints.files import ModelFiles
from rayreel.checkpoints.tiny import locate_model
from rayreel.cluster.connect import connected
from rayreel.config.jobs import MemorySpec
from rayreel.config.request import RenderRequest
from rayreel.pipelines.phases import texts_of
from rayreel.runs.bench.baseline import diffusers_pipeline, render_with_diffusers
from rayreel.runs.bench.jobs import (
    Took,
    encode_texts,
    job_spec,
    run_job,
    run_stages,
    stages_in_loop,
)
from rayreel.runs.bench.memory import in_own_process
from rayreel.runs.bench.networks import Line
from rayreel.runs.bench.pipeline import CPU, clip_requests, written_requests
from rayreel.runs.bench.spec import (
    AnyJobCase,
    BatchesCase,
    JobCase,
    JobLoopCase,
    RayOverheadCase,
    RepeatedPromptsCase,
    WarmStoreCase,
)
from rayreel.runs.bench.timing import Race, race, threads, turns
from rayreel.stages.base import ItemFailure, RenderItem, TextItem, run_stage
from rayreel.stages.denoise import GenerateStage, RefineStage
from rayreel.stages.text import TextStage

_THREADS = (1, os.cpu_count() or 1)


def compare_job(case: AnyJobCase, seconds: float) -> Line:
    """What a case of a job asks for."""
    match case:
        case JobLoopCase():
            line = compare_with_loop(case, seconds)
        case RepeatedPromptsCase():
            line = compare_repeated_prompts(case, seconds)
        case WarmStoreCase():
            line = compare_stores(case, seconds)
        case RayOverheadCase():
            line = compare_with_stages(case, seconds)
    return line


def compare_with_loop(case: JobLoopCase, seconds: float) -> Line:
    """A job of its own cluster against their loop, whose pipeline is there already.

    Their loop has one thread or as many as there are CPUs, whichever is faster.
    """
    files = ModelFiles(locate_model("tiny"))
    theirs = diffusers_pipeline(files)
    written = written_requests(case, prompts=case.clips)
    resolved = clip_requests(case, files)
    jobs: list[Took] = []
    loops: dict[int, float] = {}
    for _ in turns(seconds):
        jobs.append(_job(case, written))
        for number in dict.fromkeys(_THREADS):
            with threads(number), TemporaryDirectory() as folder:
                start = time.perf_counter()
                render_with_diffusers(theirs, resolved, Path(folder))
                took = time.perf_counter() - start
            loops[number] = min(took, loops.get(number, took))
    fastest = min(loops, key=lambda number: loops[number])
    clip = loops[fastest] / case.clips
    loop = Took(whole=loops[fastest], start=clip, clip=clip)
    return {
        **_line(jobs, "loop over diffusers' pipeline", [loop]),
        "threads": 1,
        "baseline_threads": fastest,
        "baseline_by_threads": {n: _digits(took / case.clips) for n, took in loops.items()},
    }


def compare_batches(case: BatchesCase, seconds: float) -> Line:
    """Seconds of a clip in the stages that denoise, with the one thread of an actor."""
    requests = clip_requests(case, ModelFiles(locate_model("tiny")))
    items = [RenderItem(item_id=str(request.seed), request=request) for request in requests]
    with TemporaryDirectory() as folder, threads(1):
        text = TextStage("tiny", CPU, MemorySpec(), folder)
        generate = GenerateStage("tiny", CPU, MemorySpec(), folder, folder)
        refine = RefineStage("tiny", CPU, MemorySpec(), folder)
        for stage in (text, generate, refine):
            stage.setup()
        text([TextItem(item_id=one, text=one) for one in texts_of(requests)])

        def denoised(batches: Sequence[Sequence[RenderItem]]) -> None:
            for batch in batches:
                results = run_stage(refine, run_stage(generate, batch))
                assert not any(isinstance(result, ItemFailure) for result in results)

        both = race(lambda: denoised([items]), lambda: denoised([[i] for i in items]), seconds)
    each = Race(both.ours / len(items), both.theirs / len(items))
    return {"threads": 1, **each.line("one by one")}


def compare_repeated_prompts(case: RepeatedPromptsCase, seconds: float) -> Line:
    """Jobs of as many clips, with half as many prompts and with as many; a cluster is there."""
    ours: list[Took] = []
    theirs: list[Took] = []
    with connected():
        for _ in turns(seconds):
            for prompts, jobs in ((case.clips // 2, ours), (case.clips, theirs)):
                jobs.append(_job(case, written_requests(case, prompts=prompts)))
    return {"threads": 1, **_line(ours, "all prompts different", theirs)}


def compare_stores(case: WarmStoreCase, seconds: float) -> Line:
    """Jobs of other clips of the same prompts; a cluster is there.

    Raises:
        RuntimeError: If the job whose texts are in the store has encoded one.
    """
    first, others = (
        written_requests(case, prompts=case.clips, seed=seed) for seed in (0, case.clips)
    )
    warm: list[Took] = []
    cold: list[Took] = []
    with connected():
        for _ in turns(seconds):
            with TemporaryDirectory() as name:
                folder, store = Path(name), Path(name, "store")
                cold.append(run_job(job_spec(case, first, folder / "first", store)))
                warm.append(run_job(job_spec(case, others, folder / "others", store)))
                again = job_spec(case, others, folder / "again", store)
                built = in_own_process(stages_in_loop, again, 1)
    if warm[-1].texts or "TextEncoder" in built:
        raise RuntimeError(f"{warm[-1].texts} texts were not in the store; built: {built}")
    return {"threads": 1, "built": built, **_line(warm, "texts encoded first", cold)}


def compare_with_stages(case: RayOverheadCase, seconds: float) -> Line:
    """What Ray adds to a clip: the same batches, by an actor and by a loop with one thread each."""
    requests = written_requests(case, prompts=case.clips)
    ours: list[Took] = []
    theirs: list[Took] = []
    with TemporaryDirectory() as name, connected(), threads(1):
        store = Path(name, "store")
        encode_texts(job_spec(case, requests, Path(name, "texts"), store))
        for turn in turns(seconds):
            job, loop = (
                job_spec(case, requests, Path(name, f"{way}-{turn}"), store)
                for way in ("job", "loop")
            )
            ours.append(run_job(job))
            theirs.append(run_stages(loop))
    line = _line(ours, "its stages in a loop", theirs)
    added = line["seconds"] - line["baseline_seconds"]
    return {
        "threads": 1,
        **line,
        "overhead_ms": round(1000 * added, 1),
        "overhead": round(added / line["baseline_seconds"], 4),
    }


def _job(case: JobCase, requests: Sequence[RenderRequest]) -> Took:
    with TemporaryDirectory() as folder:
        return run_job(job_spec(case, requests, Path(folder)))


def _line(ours: Sequence[Took], baseline: str, theirs: Sequence[Took]) -> Line:
    """Fields of a result: seconds of a clip once all are at work, and the call as a whole."""
    (clip, whole, start), (their_clip, their_whole, their_start) = (
        tuple(min(getattr(took, name) for took in side) for name in ("clip", "whole", "start"))
        for side in (ours, theirs)
    )
    texts = [took.text for took in (*ours, *theirs) if took.texts]
    return {
        **Race(clip, their_clip).line(baseline),
        "start_seconds": _digits(start),
        "baseline_start_seconds": _digits(their_start),
        "whole_seconds": _digits(whole),
        "baseline_whole_seconds": _digits(their_whole),
        "whole_speed_up": round(their_whole / whole, 3),
        "texts": ours[-1].texts,
        "baseline_texts": theirs[-1].texts,
        "text_seconds": _digits(min(texts, default=0.0)),
    }


def _digits(seconds: float) -> float:
    return float(f"{seconds:.4g}")
