"""An encoded dataset as a strategy sees it: checked before any work, and read sample by sample."""

import copy
import logging
import threading
from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from rayreel.checkpoints.files import ModelFiles
from rayreel.config.strategies import Reference, SpatialCrop, Streams
from rayreel.data.columns import TrainingSample
from rayreel.data.dataset import DatasetInfo
from rayreel.data.reader import LatentDataset
from rayreel.data.storage import Storage
from rayreel.data.store import RecordStore
from rayreel.errors import SpecError
from rayreel.pipelines.latents import LatentStore
from rayreel.pipelines.texts import TextStore
from rayreel.training import requirements
from rayreel.training.regions import latent_region
from rayreel.training.shapes import SampleShape, Sizes

log = logging.getLogger(__name__)

_SIZES = (
    *("latent_frames", "latent_height", "latent_width", "audio_steps"),
    *("reference_frames", "reference_height", "reference_width", "reference_audio_steps"),
)
_OF_VIDEO = {"video_encoder": "its pictures were encoded by another video VAE"}
_OF_AUDIO = {
    "audio_encoder": "its sounds were encoded by another audio VAE",
    "mel": "its sounds were made another kind of spectrograms",
}
_OF_TEXT = {
    "language_model": "its texts were encoded by another language model",
    "tokenizer": "its texts were cut up by another tokenizer",
    "feature_extractor": "its texts were projected by another feature extractor",
    "length": "its texts were filled up to another length",
}
_SHORT = 12


class TrainingData:
    """Samples for one strategy by number; any number of threads may read them.

    Attributes:
        uri: Of the dataset.
        info: What is in ``dataset.json``.
        shapes: Of every sample; equal ones are one object.
        reference_scales: Target pixels per reference pixel, and target frames per reference frame.
    """

    def __init__(self, uri: str, streams: Streams) -> None:
        """Read what is known of all samples beside their tensors.

        Args:
            uri: Folder or URI of the dataset.
            streams: Of the strategy.

        Raises:
            SpecError: If samples lack what the strategy needs, or leave nothing to learn.
            RayreelError: If there is no dataset, or it is damaged.
        """
        self.uri = uri
        self._streams = streams
        self._dataset = LatentDataset(uri)
        self._of_thread = threading.local()
        self.info: DatasetInfo = self._dataset.info
        if not len(self._dataset):
            raise SpecError(f"{uri} has no samples; the report of its encode job says why")
        table = self._dataset.columns([*requirements.COLUMNS, *_SIZES])
        requirements.check_parts(uri, table, streams)
        self.shapes, self._named = self._shapes(table)
        requirements.check_lengths(uri, self._named, streams)
        self.reference_scales = requirements.reference_scales(uri, self._named)
        if streams.video and streams.video.has_reference:
            requirements.compare_rates(uri, table, self.reference_scales[1])

    def __len__(self) -> int:
        """Number of samples."""
        return len(self.shapes)

    def sample(self, number: int) -> TrainingSample:
        """Read a sample; raises as ``LatentDataset`` does."""
        # What a dataset has open is for one thread.
        if not hasattr(self._of_thread, "dataset"):
            self._of_thread.dataset = copy.copy(self._dataset)
        found: TrainingSample = self._of_thread.dataset[number]
        return found

    def check(self, files: ModelFiles) -> None:
        """Refuse a model that the dataset was not encoded for; reads parts of its weights.

        Raises:
            SpecError: Naming what differs, or a condition that leaves nothing to learn.
            CheckpointError: If a file of the model is missing.
        """
        streams, network = self._streams, files.transformer
        for name, spec, there in (
            ("video", streams.video, network.has_video),
            ("audio", streams.audio, network.has_audio),
        ):
            if spec and not there:
                raise SpecError(
                    f"the strategy has {name}, but the model has no such stream; leave {name} out "
                    "of the strategy, or train another model"
                )
        for condition in streams.video.conditions if streams.video else ():
            if isinstance(condition, SpatialCrop):
                self._check_crop(condition, files)
            elif isinstance(condition, Reference) and condition.frame:
                self._check_pinned(condition.frame, files)
        if self.info.fingerprints:
            self._check_fingerprints(files)
        else:
            log.warning(
                "%s does not say which weights encoded it, as it was imported; if they were not "
                "those of the model, nothing of use is learned",
                self.uri,
            )
            self._check_widths(files)

    def _shapes(self, table: pa.Table) -> tuple[list[SampleShape], dict[Sizes, str]]:
        """Shapes of all samples, and the name of a sample of each size."""
        shapes: list[SampleShape] = []
        of_row: dict[tuple[int, ...], SampleShape] = {}
        of_sizes: dict[Sizes, SampleShape] = {}
        named: dict[Sizes, str] = {}
        rows = zip(*(_numbers(table, name).tolist() for name in _SIZES), strict=True)
        # There are many samples, and few sizes.
        for number, row in enumerate(rows):
            shape = of_row.get(row)
            if shape is None:
                sizes = self._sizes(row)
                named.setdefault(sizes, str(table["name"][number]))
                shape = of_sizes.setdefault(sizes, SampleShape(sizes, sizes.tokens))
                of_row[row] = shape
            shapes.append(shape)
        return shapes, named

    def _sizes(self, row: tuple[int, ...]) -> Sizes:
        """Sizes of what the strategy reads, by numbers of ``_SIZES``."""
        video, audio = self._streams.video, self._streams.audio
        frames, height, width, steps, its_frames, its_height, its_width, its_steps = row
        has_reference = bool(video and video.has_reference)
        return Sizes(
            video=(frames, height, width) if video else None,
            audio=steps if audio else None,
            reference=(its_frames, its_height, its_width) if has_reference else None,
            reference_audio=its_steps if audio and audio.has_reference else None,
        )

    def _check_pinned(self, frame: int, files: ModelFiles) -> None:
        for sizes, name in self._named.items():
            assert sizes.video is not None, "the strategy has pictures"
            if sizes.reference != (1, *sizes.video[1:]):
                found = "x".join(map(str, sizes.reference or ()))
                wanted = "x".join(map(str, (1, *sizes.video[1:])))
                raise SpecError(
                    f"{self.uri}: a reference that is pinned to frame {frame} is one image as "
                    f"large as its sample, {wanted} latent positions; that of {name!r} has {found}"
                )
            frames = (sizes.video[0] - 1) * files.factors.time + 1
            if not -frames <= frame < frames:
                raise SpecError(
                    f"{self.uri}: reference.frame {frame} is none of sample {name!r}, which has "
                    f"{frames}; expected {-frames} to {frames - 1}"
                )

    def _check_crop(self, crop: SpatialCrop, files: ModelFiles) -> None:
        top, left, bottom, right = latent_region(crop, files.factors)
        for sizes, name in self._named.items():
            assert sizes.video is not None, "the strategy has pictures"
            _, height, width = sizes.video
            if (top, left) == (0, 0) and bottom >= height and right >= width:
                raise SpecError(
                    f"{self.uri}: spatial_crop {list(crop.region)} covers all of samples such as "
                    f"{name!r}, which have {width * files.factors.width} x "
                    f"{height * files.factors.height} pixels, so nothing is left to learn of them; "
                    "make it smaller"
                )

    def _check_fingerprints(self, files: ModelFiles) -> None:
        made, records = self.info.fingerprints, RecordStore(Storage(self.uri))
        here = LatentStore(records, files, tiled=made.get("tiled") == "yes").made_by
        here |= TextStore(records, files).made_by
        if made.get("preprocessing") != here["preprocessing"]:
            log.warning(
                "%s was encoded by a version of rayreel that prepares media otherwise; to have "
                "them as they are prepared now, encode it again",
                self.uri,
            )
        parts = (_OF_VIDEO if self._streams.video else {}) | (
            _OF_AUDIO if self._streams.audio else {}
        )
        differ = [
            f"{said} ({made[part][:_SHORT]}; the model's is {here[part][:_SHORT]})"
            for part, said in (parts | _OF_TEXT).items()
            if part in made and made[part] != here[part]
        ]
        if differ:
            raise SpecError(
                f"{self.uri} was not encoded for this model: {', and '.join(differ)}. Encode it "
                "with the model that is trained, or train the one that it was encoded with"
            )

    def _check_widths(self, files: ModelFiles) -> None:
        for name, found, expected in self._widths(files):
            if found != expected:
                raise SpecError(
                    f"{self.uri} was not encoded for this model: tokens of its {name} have "
                    f"{found[0]} numbers and its texts {found[1]}, but the model reads "
                    f"{expected[0]} and {expected[1]}"
                )

    def _widths(self, files: ModelFiles) -> Iterator[tuple[str, tuple[int, int], tuple[int, int]]]:
        """Of tokens and texts, of the first sample and of the model, by stream."""
        first, network, text = self.sample(0), files.transformer, files.text
        assert first.text is not None, "checked"
        if self._streams.video and first.video_latents is not None:
            found = len(first.video_latents), first.text.video.shape[-1]
            yield "video", found, (network.in_channels, text.video.width)
        if self._streams.audio and first.audio_latents is not None:
            channels, _, bins = first.audio_latents.shape
            shared = text.feature_version == "v1"
            expected = text.video.width if shared else text.audio.width
            found = channels * bins, first.text.audio.shape[-1]
            yield "audio", found, (network.audio_in_channels, expected)


def _numbers(table: pa.Table, name: str) -> NDArray[np.int64]:
    """A column, 0 where nothing is there."""
    found: NDArray[np.int64] = pc.fill_null(table[name], 0).to_numpy()
    return found
