"""Samples of a job and what the store has of them: identities, and what is still to be encoded."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

from rayreel.checkpoints.files import ModelFiles
from rayreel.config.encode import EncodeSpec
from rayreel.data.hashing import canonical_json, content_hash
from rayreel.data.storage import Storage
from rayreel.data.store import RecordStore
from rayreel.pipelines.latents import LatentStore
from rayreel.pipelines.texts import TextStore
from rayreel.runs.encoding.captions import Caption
from rayreel.runs.encoding.groups import Keyed, grouped
from rayreel.runs.encoding.opened import store_of
from rayreel.runs.encoding.rows import MediaColumn
from rayreel.runs.encoding.samples import Candidate
from rayreel.stages.base import TextItem
from rayreel.stages.latents import LatentItem

_LONGEST = 60

# What is encoded of one file at once, and batched with its like.
_TOGETHER: tuple[tuple[MediaColumn, ...], ...] = (
    ("video", "audio"),
    ("reference_video", "reference_audio"),
    ("video_mask", "audio_mask"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """A candidate that is kept, with its caption.

    Attributes:
        candidate: What is to be encoded.
        caption: ``None`` where texts are skipped.
        keys: Of the records of its media.
        sample_id: Identity, from all that it is made of.
    """

    candidate: Candidate
    caption: Caption | None
    keys: Mapping[MediaColumn, str]
    sample_id: str


class SampleStore:
    """The store of a job, as its samples see it.

    Attributes:
        records: All of it.
        latents: Those of media.
        texts: Those of captions.
    """

    def __init__(self, spec: EncodeSpec, files: ModelFiles) -> None:
        """Open it; reads nothing yet.

        Args:
            spec: The job.
            files: Its model.
        """
        self.records = RecordStore(Storage(store_of(spec)))
        self.latents = LatentStore(self.records, files, tiled=spec.tiled)
        self.texts = TextStore(self.records, files)
        size = spec.stage("latents").batch_size
        self._group_size = None if size == "auto" else size

    def sample(self, candidate: Candidate, caption: Caption | None) -> Sample:
        """The sample that a candidate is, whether or not it is encoded yet."""
        keys = {column: self.latents.key(medium) for column, medium in candidate.media.items()}
        text = self.texts.key(caption.text) if caption else ""
        return Sample(
            candidate=candidate,
            caption=caption,
            keys=keys,
            sample_id=content_hash("sample", canonical_json(keys), text),
        )

    def new_texts(self, captions: Collection[str]) -> list[TextItem]:
        """Texts that are not there, the shortest first."""
        texts = sorted(dict.fromkeys(captions), key=lambda text: (len(text), text))
        known = self.texts.known(texts)
        new = [text for text in texts if text not in known]
        return [TextItem(item_id=self.texts.key(text), text=text) for text in new]

    def new_latents(self, samples: Sequence[Sample]) -> list[LatentItem]:
        """Media of which something is not there."""
        media: list[Keyed] = [
            keyed
            for sample in samples
            for columns in _TOGETHER
            if (
                keyed := tuple(
                    (sample.keys[column], sample.candidate.media[column])
                    for column in columns
                    if column in sample.keys
                )
            )
        ]
        keys = {key for keyed in media for key, _ in keyed}
        return grouped(media, keys - self.records.known(keys), self._group_size)

    def is_stale(self, sample: Sample) -> bool:
        """Whether anything of a sample is not there."""
        keys = set(sample.keys.values())
        texts = [sample.caption.text] if sample.caption else []
        return keys != self.records.known(keys) or bool(self.new_texts(texts))

    def stale(self, sample: Sample) -> Iterator[str]:
        """Why each part of a sample that is not there is not; reads every part of the store."""
        for column, medium in sample.candidate.media.items():
            if why := self.latents.explain(medium):
                yield f"{column.replace('_', ' ')}: {why}"
        caption = sample.caption
        if caption and (why := self.texts.explain(caption.text)):
            changes = f" ({', '.join(caption.changes)})" if caption.changes else ""
            yield f"caption: {why}: {_short(caption.text)}{changes}"


def _short(text: str) -> str:
    return repr(text if len(text) <= _LONGEST else f"{text[:_LONGEST]}...")
