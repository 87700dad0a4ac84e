"""The work of an encode job, a wave of rows at a time: from media to shards."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import groupby

from rayreel.data.columns import SampleInfo
from rayreel.data.dataset import SHARDS
from rayreel.data.hashing import canonical_json, content_hash
from rayreel.data.samples import Medium, Picture, Sound
from rayreel.media.measures import MEASURES
from rayreel.runs.budget import ErrorBudget
from rayreel.runs.encoding.captions import Caption, captions_of, cleaned, unwritten_captions
from rayreel.runs.encoding.groups import batches
from rayreel.runs.encoding.opened import EncodeRun
from rayreel.runs.encoding.outcomes import Outcome
from rayreel.runs.encoding.rows import ClipRow, MediaColumn
from rayreel.runs.encoding.samples import Candidate, Decisions, Finding
from rayreel.runs.encoding.scans import scan_rows
from rayreel.runs.encoding.store import Sample, SampleStore
from rayreel.runs.encoding.tries import Tries
from rayreel.stages.base import ItemFailure, TextItem
from rayreel.stages.latents import LatentItem
from rayreel.stages.shards import ShardItem, ShardSample

_TEXTS = 8

_TENSOR: Mapping[MediaColumn, str] = {
    "video": "video_latents",
    "audio": "audio_latents",
    "reference_video": "reference_latents",
    "reference_audio": "reference_audio_latents",
    "video_mask": "video_mask",
    "audio_mask": "audio_mask",
}


@dataclass
class EncodeWaves:
    """Encodes waves of rows.

    Attributes:
        run: The job.
        tries: Sends items through passes.
        budget: Of failures.
        encoded: How many records were made.
        counts: Samples, by what became of them.
        shards: Ids of all shards so far, in order, and how many samples each has.
        store: What was encoded.
    """

    run: EncodeRun
    tries: Tries
    budget: ErrorBudget
    encoded: int = 0
    counts: Counter[str] = field(default_factory=Counter)
    shards: list[tuple[str, int]] = field(default_factory=list)
    store: SampleStore = field(init=False)
    _seen: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Open the store."""
        self.store = SampleStore(self.run.spec, self.run.files)
        self._decisions = Decisions(self.run.spec)

    def scan(self, rows: Sequence[ClipRow]) -> list[Candidate]:
        """What is decided about some rows, from their media."""
        scans = scan_rows(rows, self.run.spec.scenes, self.store.records, self.tries)
        return [one for row in rows for one in self._decisions.of(row, scans)]

    def needed(
        self, candidates: Sequence[Candidate]
    ) -> tuple[list[TextItem], list[LatentItem], int]:
        """What has to be encoded of scanned candidates.

        Returns:
            Texts, latents, and how many captions have to be written before.
        """
        kept = [one for one in candidates if one.status == "kept"]
        samples = [self.store.sample(one, None) for one in kept]
        if "text" in self.run.spec.skip:
            return [], self.store.new_latents(samples), 0
        spec = self.run.spec.captions
        found = [cleaned(one.row.caption, spec).text for one in kept if one.row.caption]
        unwritten = unwritten_captions(kept, spec, self.store.records)
        return self.store.new_texts(found), self.store.new_latents(samples), unwritten

    def encode(self, rows: Sequence[ClipRow]) -> list[Outcome]:
        """Encode what becomes a sample of some rows.

        Returns:
            What became of each candidate, in order.

        Raises:
            ClusterError: If a stage is broken, or the cluster is lost.
            RunStopped: If too many fail.
        """
        candidates = self.scan(rows)
        samples, outcomes = self._samples(candidates)
        # Before anything is encoded: too many of them stop the job here.
        for outcome in outcomes.values():
            self._settle(outcome)
        failed = self._encoded(samples)
        later = {
            id(sample.candidate): Outcome(
                candidate=sample.candidate,
                status="failed",
                finding=Finding(rule=failure.stage, reason=failure.message),
                caption=sample.caption,
                sample_id=sample.sample_id,
            )
            for sample in samples
            if (failure := failed.get(sample.sample_id))
        }
        # One that failed, and is there later, moves no other to another shard.
        places = {
            id(one): place
            for place, one in enumerate(one for one in candidates if one.status != "dropped")
        }
        later |= self._sharded(samples, failed, places)
        for outcome in later.values():
            self._settle(outcome)
        outcomes |= later
        self.tries.progress.settle(len(rows), dict(self.counts))
        return [outcomes[id(candidate)] for candidate in candidates]

    def _samples(self, candidates: Sequence[Candidate]) -> tuple[list[Sample], dict[int, Outcome]]:
        """Samples of what is kept, and outcomes of all other candidates."""
        kept = [one for one in candidates if one.status == "kept"]
        outcomes = {
            id(one): Outcome(candidate=one, status=one.status, finding=one.findings[0])
            for one in candidates
            if one.status != "kept"
        }
        spec = self.run.spec
        captions: list[Caption | str | None] = [None] * len(kept)
        if "text" not in spec.skip:
            captions = [*captions_of(kept, spec.captions, self.store.records, self.tries)]
        samples = []
        for candidate, caption in zip(kept, captions, strict=True):
            if isinstance(caption, str):
                finding = Finding(rule="caption", reason=caption)
                outcomes[id(candidate)] = Outcome(
                    candidate=candidate, status="failed", finding=finding
                )
                continue
            sample = self.store.sample(candidate, caption)
            if twin := self._seen.get(sample.sample_id):
                finding = Finding(rule="duplicate", reason=f"the same as {twin}")
                outcomes[id(candidate)] = Outcome(
                    candidate=candidate,
                    status="dropped",
                    finding=finding,
                    caption=caption,
                    sample_id=sample.sample_id,
                )
                continue
            self._seen[sample.sample_id] = candidate.row.name
            samples.append(sample)
        return samples, outcomes

    def _encoded(self, samples: Sequence[Sample]) -> dict[str, ItemFailure]:
        """Have everything that samples need in the store; failures by sample."""
        failed_texts = self._encode_texts([s.caption.text for s in samples if s.caption])
        failed_keys = self._encode_latents(samples)
        failures: dict[str, ItemFailure] = {}
        for sample in samples:
            own = [failed_keys[key] for key in sample.keys.values() if key in failed_keys]
            if sample.caption and sample.caption.text in failed_texts:
                own.append(failed_texts[sample.caption.text])
            if own:
                failures[sample.sample_id] = own[0]
        return failures

    def _encode_texts(self, captions: Sequence[str]) -> dict[str, ItemFailure]:
        """Failures by text."""
        items = self.store.new_texts(captions)
        size = self.run.spec.stage("text").batch_size
        step = _TEXTS if size == "auto" else size
        results = self.tries.through(
            "text",
            items,
            # Each text is computed as if it were alone, so that batches may differ.
            lambda left, _: [left[start : start + step] for start in range(0, len(left), step)],
        )
        self.encoded += sum(isinstance(one, TextItem) for one in results.values())
        return {
            item.text: result
            for item in items
            if isinstance(result := results[item.item_id], ItemFailure)
        }

    def _encode_latents(self, samples: Sequence[Sample]) -> dict[str, ItemFailure]:
        """Failures by key."""
        items = self.store.new_latents(samples)
        results = self.tries.through("latents", items, batches)
        failures: dict[str, ItemFailure] = {}
        for item in items:
            result = results[item.item_id]
            if isinstance(result, ItemFailure):
                failures |= dict.fromkeys(item.missing, result)
            else:
                self.encoded += len(item.missing)
        return failures

    def _sharded(
        self,
        samples: Sequence[Sample],
        failed: Mapping[str, ItemFailure],
        places: Mapping[int, int],
    ) -> dict[int, Outcome]:
        """Have samples in shards, by their places; outcomes by candidate."""
        size = self.run.spec.shard_samples
        items: dict[str, tuple[ShardItem, list[Sample]]] = {}
        for _, part in groupby(samples, lambda sample: places[id(sample.candidate)] // size):
            if good := [sample for sample in part if sample.sample_id not in failed]:
                item = self._shard(good)
                items[item.item_id] = item, good
        there = set(self.run.storage.names(SHARDS))
        left = [
            item
            for key, (item, _) in items.items()
            # One that somebody removed, as it was damaged, is written anew.
            if f"{SHARDS}/{key}.parquet" not in there
            or self.tries.before.status([key])[0] != "done"
        ]
        results = self.tries.through("shards", left, lambda new, _: [[item] for item in new])
        outcomes: dict[int, Outcome] = {}
        for key, (_, members) in items.items():
            result = results.get(key)
            name = f"{SHARDS}/{key}.parquet"
            if not isinstance(result, ItemFailure):
                self.shards.append((key, len(members)))
            for sample in members:
                outcome = Outcome(
                    candidate=sample.candidate,
                    status="done",
                    caption=sample.caption,
                    sample_id=sample.sample_id,
                    shard=name,
                )
                if isinstance(result, ItemFailure):
                    finding = Finding(rule=result.stage, reason=result.message)
                    outcome = replace(outcome, status="failed", shard="", finding=finding)
                outcomes[id(sample.candidate)] = outcome
        return outcomes

    def _shard(self, members: Sequence[Sample]) -> ShardItem:
        samples = tuple(
            ShardSample(
                info=_info(sample),
                latents={_TENSOR[column]: key for column, key in sample.keys.items()},
                text=sample.caption.text if sample.caption else None,
            )
            for sample in members
        )
        measures = tuple(sorted(MEASURES))
        content = [[one.info.model_dump(mode="json"), dict(one.latents)] for one in samples]
        return ShardItem(
            item_id=content_hash("shard", canonical_json([content, measures])),
            samples=samples,
            measures=measures,
        )

    def _settle(self, outcome: Outcome) -> None:
        """Count what became of a candidate, and tell of one that failed."""
        self.counts[outcome.status] += 1
        failure = None
        if outcome.status == "failed" and outcome.finding:
            name, finding = outcome.candidate.row.name, outcome.finding
            self.tries.progress.tell(f"failed: {name}: {finding.reason}")
            failure = ItemFailure(
                item_id=outcome.sample_id,
                stage=finding.rule,
                error="failed",
                message=finding.reason,
                seed=None,
                attempt=1,
                seconds=0.0,
            )
        self.budget.count(failure)


def _info(sample: Sample) -> SampleInfo:
    candidate, caption = sample.candidate, sample.caption
    scan, scene = candidate.scan, candidate.scene
    assert scan is not None, "it is kept"
    assert scene is not None, "it is kept"
    video, audio = candidate.media.get("video"), candidate.media.get("audio")
    reference = candidate.media.get("reference_video")
    main = video or audio
    assert isinstance(main, Picture | Sound), "a sample has one of them"
    picture = main if isinstance(main, Picture) else None
    name = candidate.row.name if not candidate.index else f"{candidate.row.name}/{candidate.index}"
    return SampleInfo(
        sample_id=sample.sample_id,
        row=candidate.row.number,
        name=name,
        source=main.source,
        content=scan.content,
        start_frame=scene.start,
        fps=picture.fps if picture else None,
        bucket=picture.bucket if picture else None,
        reference_fps=reference.fps if isinstance(reference, Picture) else None,
        reference_duration_s=_seconds(candidate.media.get("reference_audio")),
        duration_s=picture.bucket.num_frames / picture.fps if picture else _seconds(audio) or 0.0,
        caption=caption.text if caption else None,
        caption_original=caption.original if caption else None,
        caption_changes=caption.changes if caption else (),
        caption_by=caption.by if caption else None,
        notes=(*candidate.notes, *((caption.note,) if caption and caption.note else ())),
        measures=dict(scene.measures),
    )


def _seconds(medium: Medium | None) -> float | None:
    return medium.duration_s if isinstance(medium, Sound) else None
