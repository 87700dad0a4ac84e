"""The encode job against a plain script, and the bytes of what it writes."""

import os
from collections import Counter, defaultdict
from pathlib import Path
from tempfile import TemporaryDirectory

import pyarrow.parquet as pq
from safetensors.torch import load

from rayreel.data.columns import BLOB
from rayreel.data.dataset import SHARDS
from rayreel.runs.bench.clip_files import write_clips
from rayreel.runs.bench.encode_memory import measure_encode_memory
from rayreel.runs.bench.encoding import (
    Took,
    encode_one_by_one,
    encode_spec,
    run_encode,
    timed_encode,
)
from rayreel.runs.bench.networks import Line
from rayreel.runs.bench.sharding import compare_sharding
from rayreel.runs.bench.spec import (
    AnyEncodeCase,
    EncodeBytesCase,
    EncodeLoopCase,
    EncodeMemoryCase,
    ShardingCase,
    TextBatchesCase,
)
from rayreel.runs.bench.text_batches import compare_text_batches
from rayreel.runs.bench.timing import Race, threads, turns

_THREADS = (1, os.cpu_count() or 1)


def compare_encoding(case: AnyEncodeCase, seconds: float) -> list[Line]:
    """What a case of the encode job or its parts asks for."""
    match case:
        case ShardingCase():
            lines = [compare_sharding(case)]
        case TextBatchesCase():
            lines = compare_text_batches(case, seconds)
        case EncodeLoopCase():
            lines = [compare_with_script(case, seconds)]
        case EncodeMemoryCase():
            lines = measure_encode_memory(case)
        case EncodeBytesCase():
            lines = [measure_bytes(case)]
    return lines


def compare_with_script(case: EncodeLoopCase, seconds: float) -> Line:
    """A job of its own cluster against a loop that encodes clip by clip.

    The loop has one thread or as many as there are CPUs, whichever is faster.
    """
    jobs: list[Took] = []
    loops: dict[int, list[Took]] = defaultdict(list)
    with TemporaryDirectory() as name:
        dataset = write_clips(Path(name, "clips"), case.sources, case.clips)
        for turn in turns(seconds):
            spec = encode_spec(case, dataset, Path(name, str(turn)))
            jobs.append(timed_encode(spec, case.clips))
            for number in dict.fromkeys(_THREADS):
                with threads(number), TemporaryDirectory() as folder:
                    loops[number].append(encode_one_by_one(spec, Path(folder)))
    fastest = min(loops, key=lambda number: min(took.clip for took in loops[number]))
    (whole, working, clip), (their_whole, _, their_clip) = (
        tuple(min(getattr(took, name) for took in side) for name in ("whole", "working", "clip"))
        for side in (jobs, loops[fastest])
    )
    return {
        "threads": 1,
        **Race(clip, their_clip).line("one by one"),
        "baseline_threads": fastest,
        "baseline_by_threads": {
            number: _digits(min(took.clip for took in side)) for number, side in loops.items()
        },
        "clips_per_s": _digits(1 / clip),
        "working_seconds": _digits(working),
        "working_speed_up": round(their_whole / working, 3),
        "whole_seconds": _digits(whole),
        "baseline_whole_seconds": _digits(their_whole),
        "whole_speed_up": round(their_whole / whole, 3),
        "passes": {
            name: _digits(min(took.passes[name] for took in jobs)) for name in jobs[0].passes
        },
    }


def measure_bytes(case: EncodeBytesCase) -> Line:
    """Bytes of a sample, by part, against those of its file and of its frames as RGB."""
    with TemporaryDirectory() as name:
        folder = Path(name)
        dataset = write_clips(folder / "clips", case.sources, case.clips)
        spec = encode_spec(case, dataset, folder)
        run_encode(spec, case.clips)
        parts: Counter[str] = Counter()
        whole = rgb = 0
        for path in sorted(Path(spec.output, SHARDS).iterdir()):
            whole += path.stat().st_size
            for row in pq.read_table(path).to_pylist():
                tensors = load(row[BLOB.name])
                parts.update({name: tensor.nbytes for name, tensor in tensors.items()})
                rgb += 3 * row["num_frames"] * row["height"] * row["width"]
        store = sum(path.stat().st_size for path in Path(spec.output, "records").iterdir())
        source = sum(path.stat().st_size for path in dataset.parent.glob("*.mp4"))
    each = {part: round(size / case.clips) for part, size in parts.items()}
    return {
        "sample_bytes": round(whole / case.clips),
        "part_bytes": each,
        "other_bytes": round((whole - parts.total()) / case.clips),
        "store_bytes": round(store / case.clips),
        "source_bytes": round(source / case.clips),
        "rgb_bytes": round(rgb / case.clips),
        "rgb_per_byte": round(rgb / whole, 2),
        "rgb_per_video_latents_byte": round(rgb / parts["video_latents"], 2),
    }


def _digits(seconds: float) -> float:
    return float(f"{seconds:.4g}")
