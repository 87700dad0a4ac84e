"""Samples of a dataset decoded again, beside the frames that they were encoded from."""

import math
from collections.abc import Generator
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from rayreel.checkpoints.files import ModelFiles
from rayreel.config.encode import EncodeSpec
from rayreel.config.request import RenderRequest
from rayreel.data.columns import SampleInfo, TrainingSample
from rayreel.data.dataset import DatasetInfo
from rayreel.data.reader import LatentDataset
from rayreel.data.storage import Storage
from rayreel.data.store import RecordStore
from rayreel.errors import MediaError, SpecError
from rayreel.media.image import write_image
from rayreel.media.mux import write_clip
from rayreel.media.sound import write_sound
from rayreel.pipelines.decoding import decode
from rayreel.pipelines.latents import LatentStore
from rayreel.pipelines.ledger import ModelLedger
from rayreel.runs.encoding.report.framed import source_frames
from rayreel.runs.encoding.report.picks import pick
from rayreel.types import ClipStream, Latents

FOLDER = "inspect"
_ENCODER = "video_encoder"
# Decoding asks a request for nothing but its noise; what is at hand has no limits on frame rates.
_REQUEST = RenderRequest(prompt="a sample of a dataset", seed=0)
_TINT = torch.tensor([40.0, 110.0, 255.0])


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckedClip:
    """A sample that was decoded, and files in the dataset's folder that show it.

    Attributes:
        name: What the list calls it.
        caption: That was encoded; empty without one.
        path: The clip, image or sound: where it is compared, the source is on its left.
        thumb: A frame of a clip.
        psnr_db: Of all decoded pixels against those of the source, infinite if they are the same;
            ``None`` where it is not compared.
        fault: Why it is not.
        reference: The reference, decoded.
        mask: A frame on which the mask is painted.
        facts: Names and values for a person.
        decoded_by: Model and device.
    """

    name: str
    caption: str
    path: str
    thumb: str | None = None
    psnr_db: float | None = None
    fault: str = ""
    reference: str | None = None
    mask: str | None = None
    facts: tuple[tuple[str, str], ...] = ()
    decoded_by: str = ""

    @property
    def is_compared(self) -> bool:
        """Whether the source is beside it."""
        return self.psnr_db is not None

    @property
    def psnr(self) -> str:
        """For a person; empty where it is not compared."""
        if self.psnr_db is None:
            return ""
        return "identical" if math.isinf(self.psnr_db) else f"{self.psnr_db:.1f} dB"


def check_clips(
    dataset: LatentDataset,
    ledger: ModelLedger,
    storage: Storage,
    *,
    spec: EncodeSpec | None,
    count: int = 12,
) -> list[CheckedClip]:
    """Decode some samples, evenly over the buckets, and compare them with their sources.

    A source that is gone, or has changed, costs its comparison alone. Files of an inspection before
    are removed.

    Args:
        dataset: What to look at.
        ledger: For the decoders.
        storage: Of the dataset; files go into its folder ``inspect``.
        spec: Of the job that encoded it, if that is known.
        count: How many samples, at most.

    Raises:
        SpecError: If the model's latents are others than the dataset's.
        RayreelError: If the dataset is damaged.
    """
    _check_model(dataset.info, ledger.files)
    said = _decoder(dataset.info, ledger, storage)
    work = _Inspection(ledger, storage, spec)
    clips = [
        replace(work.check(number, dataset[number]), decoded_by=said)
        for number in pick(dataset, storage, count)
    ]
    storage.remove(set(storage.names(FOLDER)) - work.written)
    return clips


class _Inspection:
    """Decodes and compares samples, and keeps the names of what it has written."""

    def __init__(self, ledger: ModelLedger, storage: Storage, spec: EncodeSpec | None) -> None:
        self._ledger = ledger
        self._storage = storage
        self._spec = spec
        self.written: set[str] = set()

    def check(self, number: int, sample: TrainingSample) -> CheckedClip:
        """One sample, by its number in the dataset, which no other has: ids can be any text."""
        info, name = sample.info, f"{number:06}"
        clip = CheckedClip(
            name=info.name,
            caption=info.caption or "",
            path=f"{FOLDER}/{name}.wav",
            facts=tuple(_facts(number, sample)),
        )
        decoded = self._decoded(sample.video_latents, sample.audio_latents, info.fps)
        if sample.video_latents is None:
            self._write_sound(clip.path, decoded)
            return clip
        source, fault = None, ""
        try:
            source = source_frames(info, self._spec)
        except MediaError as error:
            fault = str(error)
        shown = _Beside(decoded, source)
        clip = replace(clip, path=self._write(name, shown.stream()), fault=fault)
        clip = replace(clip, psnr_db=shown.psnr_db)
        if decoded.num_frames > 1:
            clip = replace(clip, thumb=self._write_jpeg(f"{name}-thumb", shown.middle))
        if sample.video_mask is not None:
            painted = _painted(shown.decoded_middle, sample.video_mask)
            clip = replace(clip, mask=self._write_jpeg(f"{name}-mask", painted))
        return replace(clip, reference=self._reference(name, sample))

    def _reference(self, name: str, sample: TrainingSample) -> str | None:
        video, audio = sample.reference_latents, sample.reference_audio_latents
        if video is None and audio is None:
            return None
        decoded = self._decoded(video, audio, sample.info.reference_fps or sample.info.fps)
        if video is not None:
            return self._write(f"{name}-reference", decoded)
        path = f"{FOLDER}/{name}-reference.wav"
        self._write_sound(path, decoded)
        return path

    def _decoded(self, video: Tensor | None, audio: Tensor | None, fps: float | None) -> ClipStream:
        stream = decode(self._ledger, _REQUEST, Latents(video=video, audio=audio))
        return replace(stream, fps=fps or stream.fps)

    def _write(self, name: str, clip: ClipStream) -> str:
        """Write an image, or a clip with its sound; returns its path."""
        still = clip.num_frames == 1
        path = self._named(f"{name}.{'png' if still else 'mp4'}")
        with self._storage.local_staging(path) as staged:
            if still:
                write_image(staged, clip.collect().frames[0])
            else:
                write_clip(staged, clip)
        return path

    def _write_sound(self, path: str, clip: ClipStream) -> None:
        self.written.add(path)
        sound = clip.collect().audio
        assert sound, "a sample has a picture or sound"
        with self._storage.local_staging(path) as staged:
            write_sound(staged, sound, format="wav")

    def _write_jpeg(self, name: str, frame: Tensor) -> str:
        path = self._named(f"{name}.jpg")
        with self._storage.local_staging(path) as staged:
            Image.fromarray(frame.numpy()).save(staged, "JPEG", quality=90)
        return path

    def _named(self, name: str) -> str:
        path = f"{FOLDER}/{name}"
        self.written.add(path)
        return path


class _Beside:
    """A clip with its source on the left, and how much they differ.

    Attributes:
        middle: The frame in the middle, once it has been read.
        decoded_middle: The same without the source.
    """

    def __init__(self, decoded: ClipStream, source: Tensor | None) -> None:
        self._decoded = decoded
        self._source = source
        self._squared = 0
        self.middle = self.decoded_middle = torch.empty(0)

    def stream(self) -> ClipStream:
        """Both as one clip, to be read once."""
        return replace(self._decoded, frames=self._frames())

    @property
    def psnr_db(self) -> float | None:
        """Peak signal to noise ratio, once all has been read; ``None`` without a source."""
        if self._source is None:
            return None
        mean = self._squared / self._source.numel() / 255**2
        return 10 * math.log10(1 / mean) if mean else math.inf

    def _frames(self) -> Generator[Tensor, None, None]:
        start, middle = 0, self._decoded.num_frames // 2
        with closing(self._decoded.frames) as chunks:
            for chunk in chunks:
                shown = chunk
                if self._source is not None:
                    source = self._source[start : start + len(chunk)]
                    self._squared += int((chunk.int() - source.int()).square().sum())
                    shown = torch.cat([source, chunk], dim=2)
                if start <= middle < start + len(chunk):
                    place = middle - start
                    self.middle, self.decoded_middle = shown[place], chunk[place]
                start += len(chunk)
                yield shown


def _painted(frame: Tensor, mask: Tensor) -> Tensor:
    """The frame in the middle of a clip, blue where its mask ``(F, H, W)`` keeps it."""
    kept = mask[len(mask) // 2]
    rows, columns = (size // of for size, of in zip(frame.shape[:2], kept.shape, strict=True))
    kept = kept.repeat_interleave(rows, 0).repeat_interleave(columns, 1)[..., None]
    tinted = frame * (1 - 0.5 * kept) + 0.5 * kept * _TINT
    return tinted.to(torch.uint8)


def _facts(number: int, sample: TrainingSample) -> Generator[tuple[str, str], None, None]:
    info = sample.info
    yield "sample", f"{number}, of row {info.row}"
    yield "source", _where(info)
    if info.bucket:
        yield "size", f"{info.bucket} at {info.fps or 0:g} fps"
    yield "duration", f"{info.duration_s:.2f} s, {'with' if _has_sound(sample) else 'no'} sound"
    if sample.text:
        yield "text", f"{len(sample.text.video)} of {sample.text.length} tokens"
    for note in info.notes:
        yield "note", note


def _where(info: SampleInfo) -> str:
    return f"{info.source} from frame {info.start_frame}" if info.start_frame else info.source


def _has_sound(sample: TrainingSample) -> bool:
    return sample.audio_latents is not None


def _check_model(info: DatasetInfo, files: ModelFiles) -> None:
    statistics = info.statistics.video_latents
    expected = files.video_vae.latent_channels
    if statistics and len(statistics.mean) != expected:
        raise SpecError(
            f"the dataset's latents have {len(statistics.mean)} channels, those of the model "
            f"{expected}; expected the model that encoded it"
        )
    if info.statistics.with_audio and not files.transformer.has_audio:
        raise SpecError(
            "the dataset has sound, and the model has none; expected the model that encoded it"
        )


def _decoder(info: DatasetInfo, ledger: ModelLedger, storage: Storage) -> str:
    """What decodes, and whether it is of the model that encoded."""
    files = ledger.files
    said = f"{_model_name(files)} on {ledger.device.type} in {str(ledger.dtype).rpartition('.')[2]}"
    encoder = info.fingerprints.get(_ENCODER)
    own = LatentStore(RecordStore(storage), files, tiled=False).made_by[_ENCODER]
    if encoder is None:
        return f"{said}; the dataset does not say what encoded it"
    return said if encoder == own else f"{said}, which is not the model that encoded the dataset"


def _model_name(files: ModelFiles) -> str:
    spec = files.spec
    return Path(spec.video_vae or spec.checkpoint or spec.gemma).name
