"""An encode job of its own list, a plain script that does the same, and what both took."""

import json
import time
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import torch
from safetensors.torch import save_file

from rayreel.config.encode import EncodeSpec
from rayreel.config.jobs import StageSpec
from rayreel.data.buckets import choose_bucket
from rayreel.data.samples import Picture, Sound
from rayreel.media.framing import center_crop
from rayreel.pipelines import phases
from rayreel.pipelines.encoding import encode_pictures, encode_sounds, read_picture, read_sound
from rayreel.pipelines.ledger import ModelLedger
from rayreel.runs.bench.pipeline import CPU
from rayreel.runs.bench.spec import EncodeClipsCase
from rayreel.runs.encode import encode
from rayreel.runs.encoding.rows import ClipList
from rayreel.stages.scan import hash_file, scan_file


@dataclass(frozen=True)
class Took:
    """What a list of clips took, in seconds.

    Attributes:
        whole: From the call to its end.
        working: The same without the start of workers, but with loading.
        clip: For a clip once all is loaded.
        passes: ``working``, by pass.
    """

    whole: float
    working: float
    clip: float
    passes: dict[str, float]


def encode_spec(case: EncodeClipsCase, dataset: Path, folder: Path) -> EncodeSpec:
    """The spec of a job.

    Args:
        case: Buckets, workers and batch size.
        dataset: The list.
        folder: Where the dataset and the traces go; it may be missing.
    """
    return EncodeSpec(
        dataset=str(dataset),
        output=str(folder / "dataset"),
        buckets=case.buckets,
        workers=StageSpec(replicas=case.workers, cpus=1, device="cpu", dtype="float32"),
        stages={"latents": StageSpec(batch_size=case.batch)},
        traces=str(folder / "traces"),
    )


def run_encode(spec: EncodeSpec, clips: int) -> float:
    """Run a job as the command line does.

    Args:
        spec: The job.
        clips: How many of them there are.

    Returns:
        Seconds of the call.

    Raises:
        RuntimeError: If not all of its clips are samples afterwards.
    """
    start = time.perf_counter()
    summary = encode(spec)
    whole = time.perf_counter() - start
    if summary.done != clips:
        raise RuntimeError(f"a comparison needs all {clips} clips of the job: {summary}")
    return whole


def timed_encode(spec: EncodeSpec, clips: int) -> Took:
    """What a job takes; raises as ``run_encode`` does."""
    whole = run_encode(spec, clips)
    assert spec.traces, "as encode_spec makes them"
    passes = traced_passes(Path(spec.traces))
    return Took(
        whole=whole,
        working=sum(one.window for one in passes.values()),
        clip=sum(one.seconds for one in passes.values()) / clips,
        passes={name: one.window for name, one in passes.items()},
    )


@torch.inference_mode()
def encode_one_by_one(spec: EncodeSpec, folder: Path) -> Took:
    """Encode the list of a job in this process: clip by clip, each to a file.

    Args:
        spec: The job, of videos with captions of their own.
        folder: An empty one.
    """
    start = time.perf_counter()
    ledger = ModelLedger("tiny", CPU)
    rows = list(ClipList(spec))
    ends = []
    for row in rows:
        path = Path(row.media["video"])
        scan = scan_file(path, hash_file(path), spec.scenes)
        width, height = scan.width, scan.height
        bucket = choose_bucket(spec.buckets, width=width, height=height, num_frames=scan.num_frames)
        assert bucket, "clips are as long as a bucket"
        picture = Picture(
            source=str(path),
            content=scan.content,
            fps=scan.fps,
            bucket=bucket,
            crop=center_crop(width, height, bucket.width, bucket.height),
        )
        duration_s = bucket.num_frames / scan.fps
        sound = Sound(source=str(path), content=scan.content, duration_s=duration_s)
        pixels = read_picture(path, picture)
        waveform, _ = read_sound(path, sound, ledger.files.audio_vae)
        (video,) = encode_pictures(ledger, [pixels], tiled=spec.tiled)
        (audio,) = encode_sounds(ledger, [waveform])
        (text,) = phases.features(ledger, [row.caption])
        tensors = {
            "video_latents": video.to(torch.bfloat16),
            "audio_latents": audio,
            "text": text.video.to(torch.bfloat16),
        }
        save_file(
            {name: tensor.contiguous() for name, tensor in tensors.items()},
            folder / f"{row.number}.safetensors",
            {"caption": row.caption, "scan": scan.model_dump_json()},
        )
        ends.append(time.perf_counter() - start)
    clip = (ends[-1] - ends[0]) / (len(ends) - 1)
    return Took(whole=ends[-1], working=ends[-1], clip=clip, passes={})


@dataclass(frozen=True)
class Pass:
    """A pass, in seconds.

    Attributes:
        window: From the begin of its first batch to the end of its last.
        seconds: For all of its items, at the pace that workers have after their first batch.
    """

    window: float
    seconds: float


def traced_passes(traces: Path) -> dict[str, Pass]:
    """What traces tell of each pass, in the order in which they ran."""
    spans: dict[str, list[tuple[str, float, float]]] = defaultdict(list)
    for path in sorted(traces.iterdir()):
        for line in path.read_text("utf-8").splitlines():
            span = json.loads(line)
            if span["name"] != "item":
                worker = span["attributes"]["rayreel.worker"]
                began, ended = (_moment(span[name]) for name in ("start_time", "end_time"))
                spans[span["name"]].append((worker, began, ended))
    found = {name: _pass(items) for name, items in spans.items()}
    return dict(sorted(found.items(), key=lambda named: min(one[1] for one in spans[named[0]])))


def _pass(items: Iterable[tuple[str, float, float]]) -> Pass:
    """Of items, with their worker and when their batch began and ended."""
    spans = list(items)
    window = max(ended for *_, ended in spans) - min(began for _, began, _ in spans)
    batches: dict[str, dict[float, list[float]]] = defaultdict(lambda: defaultdict(list))
    for worker, began, ended in spans:
        batches[worker][began].append(ended)
    rate = 0.0
    for own in batches.values():
        _, *later = sorted(own)
        if later:
            last_end, first_end = max(own[later[-1]]), max(own[min(own)])
            rate += sum(len(own[began]) for began in later) / (last_end - first_end)
    return Pass(window, len(spans) / rate if rate else window)


def _moment(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()
