"""Encoded media in the record store: latents of pictures and sounds, and masks in their size."""

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import torch
from safetensors.torch import load, save
from torch import Tensor

from rayreel.checkpoints import networks
from rayreel.checkpoints.files import ModelFiles
from rayreel.checkpoints.fingerprint import fingerprint_tensors
from rayreel.data.hashing import canonical_json, content_hash
from rayreel.data.samples import Mask, Medium, Picture, Sound
from rayreel.data.store import Record, RecordStore
from rayreel.pipelines.encoding import sound_steps

PREPROCESSING = "1"
"""Of how media are read, framed and encoded: a change that gives other numbers raises it."""

Kind = Literal["video_latents", "audio_latents", "video_mask", "audio_mask"]

_NAME = "latents"
_NOTE = "note"
_SHORT = 12
_HASHES = ("content", "video_encoder", "audio_encoder", "mel")
_ENCODER_FIELDS = {
    *("in_channels", "latent_channels", "encoder_blocks", "patch_size", "norm_layer"),
    "latent_log_var",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Encoded:
    """What the store has of a medium.

    Attributes:
        tensor: On the CPU: bfloat16 ``(C, F, H, W)`` of a picture, float32 ``(C, T, bins)`` of a
            sound, float32 ``(F, H, W)`` or ``(T,)`` of a mask.
        note: What was amiss when it was read.
    """

    tensor: Tensor
    note: str | None = None


class LatentStore:
    """Latents and masks by what they were made of.

    In the key are the file's content, the part of it that was taken and how it was framed, the
    encoder's weights, and the version of all that lies between. The dtype that was computed in is
    not: stages that compute in different ones share what there is.

    Attributes:
        records: Where they lie.
    """

    def __init__(self, records: RecordStore, files: ModelFiles, *, tiled: bool) -> None:
        """Keep the arguments; reads nothing yet.

        Args:
            records: Where they lie.
            files: The model whose latents they are.
            tiled: Whether large pictures are encoded in tiles, which gives other numbers.
        """
        self.records = records
        self._files = files
        self._tiled = tiled

    @property
    def made_by(self) -> dict[str, str]:
        """What all latents of this model depend on, by name."""
        found = {
            "preprocessing": PREPROCESSING,
            "video_encoder": self._video_encoder,
            "tiled": _yes_or_no(self._tiled),
        }
        if self._files.transformer.has_audio:
            found |= {"audio_encoder": self._audio_encoder, "mel": self._mel}
        return found

    def key(self, medium: Medium) -> str:
        """Identity of what a medium is encoded to."""
        return content_hash(kind_of(medium), canonical_json(self._made_by(medium)))

    def known(self, keys: Collection[str]) -> set[str]:
        """Those of some keys that are there by now; raises ``RayreelError`` for damaged parts."""
        return self.records.known(keys)

    def get(self, key: str) -> Tensor | None:
        """What is there under a key; ``None`` for nothing; raises ``RayreelError`` as above."""
        found = self.read([key])
        return found[key].tensor if found else None

    def read(self, keys: Collection[str]) -> dict[str, Encoded]:
        """What is there under some keys, with the notes; raises ``RayreelError`` as above."""
        return {key: _unpacked(one.tensors) for key, one in self.records.read(keys).items()}

    def put(
        self, tensors: Mapping[Medium, Tensor], notes: Mapping[Medium, str] | None = None
    ) -> None:
        """Keep what media were encoded to, all of it as one part; at least one.

        Args:
            tensors: As of ``Encoded``, of any dtype and device.
            notes: What was amiss, for those where something was.

        Raises:
            OSError: If they cannot be written.
        """
        notes = notes or {}
        self.records.put(
            *(
                Record(
                    key=self.key(medium),
                    kind=kind_of(medium),
                    text=_where(medium),
                    tensors=_packed(tensor, medium, notes.get(medium)),
                    made_by={name: _short(name, v) for name, v in self._made_by(medium).items()},
                )
                for medium, tensor in tensors.items()
            )
        )

    def explain(self, medium: Medium) -> str | None:
        """Why a medium is not known, ``None`` if it is; reads every part of the store."""
        if self.known([self.key(medium)]):
            return None
        others = self.records.find(kind_of(medium), _where(medium))
        if not others:
            return "this part of the file was never encoded"
        made_by = {name: _short(name, value) for name, value in self._made_by(medium).items()}
        nearest = min((_changes(one.made_by or {}, made_by) for one in others), key=len)
        return f"this part of the file was encoded with {' and '.join(nearest)}"

    def _made_by(self, medium: Medium) -> dict[str, str]:
        """What decides about the result, by name."""
        common = {"content": medium.content, "preprocessing": PREPROCESSING}
        match medium:
            case Picture():
                return {
                    **common,
                    "video_encoder": self._video_encoder,
                    "tiled": _yes_or_no(self._tiled),
                    "crop": ",".join(map(str, medium.crop)),
                    **_frames(medium, medium.start),
                    "fps": canonical_json(medium.fps),
                }
            case Sound():
                return {
                    **common,
                    "audio_encoder": self._audio_encoder,
                    "mel": self._mel,
                    **_seconds(medium),
                }
            case Mask(of=Picture() as picture):
                factors = "x".join(map(str, self._files.factors))
                return {**common, **_frames(picture, medium.start), "factors": factors}
            case Mask(of=Sound() as sound):
                steps = sound_steps(self._files.audio_vae, sound.duration_s)
                return {**common, **_seconds(sound), "steps": str(steps)}
        raise AssertionError("masks are of pictures or sounds")

    @cached_property
    def _video_encoder(self) -> str:
        network, config = networks.video_encoder(self._files), self._files.video_vae
        values = config.model_dump(mode="json", include=_ENCODER_FIELDS)
        return content_hash(
            canonical_json({**values, "padding": config.encoder_padding}),
            fingerprint_tensors(network.file, network.names),
        )

    @cached_property
    def _audio_encoder(self) -> str:
        network, config = networks.audio_encoder(self._files), self._files.audio_vae.network
        return content_hash(
            canonical_json(config.model_dump(mode="json")),
            fingerprint_tensors(network.file, network.names),
        )

    @cached_property
    def _mel(self) -> str:
        config = self._files.audio_vae
        values = config.preprocessing.model_dump(mode="json")
        return content_hash(canonical_json([values, config.sample_rate_hz, config.mel_bins]))


def kind_of(medium: Medium) -> Kind:
    """Kind of a medium's record."""
    match medium:
        case Picture():
            return "video_latents"
        case Sound():
            return "audio_latents"
        case Mask(of=Picture()):
            return "video_mask"
        case Mask():
            return "audio_mask"


def _where(medium: Medium) -> str:
    """What records of one part of a file share, however it was encoded."""
    match medium:
        case Sound():
            start: float = medium.start_s
        case Mask(of=Sound() as sound):
            start = sound.start_s
        case Picture() | Mask():
            start = medium.start
    return f"{medium.content} from {canonical_json(start)}"


def _frames(picture: Picture, start: int) -> dict[str, str]:
    bucket, stride = str(picture.bucket), str(picture.stride)
    return {"start": str(start), "bucket": bucket, "stride": stride}


def _seconds(sound: Sound) -> dict[str, str]:
    start, duration = canonical_json(sound.start_s), canonical_json(sound.duration_s)
    return {"start": start, "duration": duration}


def _yes_or_no(value: bool) -> str:
    return "yes" if value else "no"


def _short(name: str, value: str) -> str:
    return value[:_SHORT] if name in _HASHES else value


def _changes(before: Mapping[str, str], now: Mapping[str, str]) -> list[str]:
    """What a record was made of otherwise."""
    return [
        f"another {name.replace('_', ' ')} ({before.get(name)}; here {value})"
        for name, value in now.items()
        if before.get(name) != value
    ]


def _packed(tensor: Tensor, medium: Medium, note: str | None) -> bytes:
    # What training reads: it has no use for more digits of a picture than its tools store.
    dtype = torch.bfloat16 if isinstance(medium, Picture) else torch.float32
    stored = tensor.detach().to("cpu", dtype).contiguous()
    return save({_NAME: stored}, {_NOTE: note} if note else None)


def _unpacked(data: bytes) -> Encoded:
    # The library reads metadata of files, and not of bytes.
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    note = header.get("__metadata__", {}).get(_NOTE)
    return Encoded(tensor=load(data)[_NAME], note=note)
