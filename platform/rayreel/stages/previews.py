"""Pictures of clips while they are denoised, by what clips that were decoded before have taught."""

import io
import logging
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from PIL import Image
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from rayreel.checkpoints import networks
from rayreel.checkpoints.files import ModelFiles
from rayreel.checkpoints.fingerprint import fingerprint_tensors
from rayreel.data.storage import Storage
from rayreel.errors import StorageError
from rayreel.pipelines.preview import ClipColours, Projection, ProjectionSums

Estimate = Callable[[], Tensor]

_EVERY_S = 1.0
_LONG_SIDE = 128
_QUALITY = 75
# How often the projection is written and read, and looked for while there is none.
_KEPT_S = 60.0
_LOOK_S = 5.0
# Nobody waits longer for a store because of a preview.
_PATIENCE_S = 2.0

log = logging.getLogger(__name__)


class ProjectionFile:
    """The sums of a decoder in the store, which all actors of a service share.

    Of several that write, the last one counts: each goes on from what it found.
    """

    def __init__(self, store: str, files: ModelFiles) -> None:
        """Nothing is read yet.

        Args:
            store: Folder or URI.
            files: The model, whose decoder the sums are of.
        """
        network = networks.video_decoder(files)
        weights = fingerprint_tensors(network.file, network.names)
        self._name = f"previews/{weights}.safetensors"
        self._storage = Storage(store, patience_s=_PATIENCE_S)

    def read(self) -> ProjectionSums | None:
        """The sums, or ``None`` where there are none, or the store does not tell."""
        try:
            tensors = load(self._storage.read_bytes(self._name))
        except FileNotFoundError:
            return None
        except (StorageError, OSError, SafetensorError) as error:
            log.warning("no previews for now, as %s cannot be read: %s", self._name, error)
            return None
        return ProjectionSums(tensors["latents"], tensors["colours"])

    def write(self, sums: ProjectionSums) -> None:
        """Replace the sums; a store that does not answer keeps what it has."""
        try:
            data = save({"latents": sums.latents, "colours": sums.colours})
            self._storage.write_bytes(self._name, data)
        except (StorageError, OSError) as error:
            log.warning("previews learn nothing, as %s cannot be written: %s", self._name, error)


@dataclass
class Teacher:
    """Learns the projection from clips while they are written.

    Attributes:
        file: Where the projection is kept.
        files: The model.
    """

    file: ProjectionFile
    files: ModelFiles
    _sums: ProjectionSums | None = field(default=None, init=False)
    _written_at: float = field(default=-math.inf, init=False)

    def watch(self, video: Tensor) -> ClipColours:
        """Whom to show the frames that latents ``(C, F, H, W)`` become."""
        return ClipColours(video, self.files.factors)

    def learn(self, clip: ClipColours) -> None:
        """Take in a clip whose frames have all been shown, and now and then write."""
        before = self._sums or self.file.read()
        self._sums = clip.added(before or ProjectionSums.empty(len(clip.video)))
        if time.monotonic() - self._written_at >= _KEPT_S:
            self.file.write(self._sums)
            self._written_at = time.monotonic()


@dataclass
class Painter:
    """Paints latents by the projection, as soon as there is one.

    Attributes:
        file: Where the projection is kept.
    """

    file: ProjectionFile
    _projection: Projection | None = field(default=None, init=False)
    _read_at: float = field(default=-math.inf, init=False)

    def album(self, item_ids: Sequence[str], show: Callable[["Pictures"], None]) -> "Album":
        """What is shown each estimate of one batch.

        Args:
            item_ids: Its items in order.
            show: Told of its pictures, at most once a second.
        """
        return Album(self, item_ids, show)

    def projection(self) -> Projection | None:
        """The one that there is, as of a minute ago."""
        now = time.monotonic()
        wait_s = _KEPT_S if self._projection else _LOOK_S
        if now - self._read_at >= wait_s:
            self._read_at = now
            sums = self.file.read()
            self._projection = sums.solved() if sums else self._projection
        return self._projection


Pictures = tuple[tuple[str, bytes], ...]
"""Small WebP pictures with the items that they are of."""


@dataclass
class Album:
    """Pictures of one batch; called with each of its estimates.

    Attributes:
        painter: Paints.
        item_ids: Items of the batch in order.
        show: Told of the pictures.
    """

    painter: Painter
    item_ids: Sequence[str]
    show: Callable[[Pictures], None]
    _shown_at: float = field(default=-math.inf, init=False)

    def __call__(self, estimate: Estimate) -> None:
        """Show what is in the middle of each clip, unless it was just shown.

        Args:
            estimate: Gives the latents, ``(B, C, F, H, W)``.
        """
        if time.monotonic() - self._shown_at < _EVERY_S:
            return
        projection = self.painter.projection()
        if projection is None:
            return
        latents = estimate()
        middles = latents[:, :, latents.shape[2] // 2].cpu()
        painted = [_encoded(projection(middle)) for middle in middles]
        self._shown_at = time.monotonic()
        self.show(tuple(zip(self.item_ids, painted, strict=True)))


def _encoded(frame: Tensor) -> bytes:
    """A WebP of a frame of few pixels, large enough to be looked at."""
    picture = Image.fromarray(frame.numpy())
    times = math.ceil(_LONG_SIDE / max(picture.size))
    size = (picture.width * times, picture.height * times)
    data = io.BytesIO()
    picture.resize(size, Image.Resampling.BICUBIC).save(data, "WEBP", quality=_QUALITY)
    return data.getvalue()
