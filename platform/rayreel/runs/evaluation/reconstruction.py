"""Drawn clips through the autoencoders of a model, in this process."""

import dataclasses
from collections.abc import Iterator

import torch
from torch import Tensor

from rayreel.checkpoints.files import ModelFiles
from rayreel.config.evaluate import EvalSpec, ReconstructedSuite
from rayreel.config.jobs import ModelFile, StageSpec
from rayreel.config.request import RenderRequest
from rayreel.data.hashing import canonical_json, content_hash
from rayreel.data.storage import Storage
from rayreel.errors import SpecError
from rayreel.media.mux import write_clip
from rayreel.media.similarity import psnr_db, ssim
from rayreel.models.audio_vae import log_mel, resample
from rayreel.pipelines.decoding import decode
from rayreel.pipelines.devices import choose_device
from rayreel.pipelines.encoding import encode_pictures, encode_sounds
from rayreel.pipelines.faults import request_faults
from rayreel.pipelines.ledger import ModelLedger
from rayreel.runs.evaluation.judge import MOST_DB, Case, judge
from rayreel.runs.evaluation.judged import JudgedClip
from rayreel.runs.evaluation.scenes import scenes
from rayreel.types import Audio, Clip, Latents
from rayreel.world.dataset import Format, make_clip

FOLDER = "reconstructed"
"""Of the run directory, where clips lie beside what became of them."""

_FILES: tuple[ModelFile, ...] = ("video_vae", "audio_vae", "vocoder")


def reconstruction_cases(
    spec: EvalSpec, suite: ReconstructedSuite, files: ModelFiles
) -> Iterator[Case]:
    """What the clips of a suite are held against: all of their scenes.

    Args:
        spec: Of the evaluation.
        suite: One of its suites.
        files: The model.

    Raises:
        SpecError: If the model has no clips of that size or length.
    """
    _check(suite, files)
    size = [suite.width, suite.height, suite.num_frames, suite.fps]
    identity = content_hash(files.fingerprint(_FILES), canonical_json(size))
    for index, one in enumerate(scenes(suite, spec.seed)):
        yield Case(
            suite=suite.name,
            name=f"{suite.name}-{index:04}",
            asked=dataclasses.replace(one, names_size=True, names_background=True),
            identity=identity,
            sound=files.transformer.has_audio,
            given=("first_frame", "last_frame", "reference"),
            bounds=spec.bounds,
        )


class Reconstruction:
    """Encodes and decodes drawn clips, in float32 as sound is encoded."""

    def __init__(self, spec: EvalSpec, storage: Storage) -> None:
        """Open the model's files; builds nothing yet.

        Args:
            spec: Of the evaluation.
            storage: The run directory.
        """
        choice = StageSpec(device=spec.workers.device, dtype="float32")
        self._ledger = ModelLedger(spec.model, choose_device(choice), spec.memory)
        self._storage = storage

    def judged(self, case: Case, suite: ReconstructedSuite) -> JudgedClip:
        """Take a clip through the autoencoders, and judge what comes out.

        Args:
            case: Of the suite.
            suite: Says how large clips are.

        Raises:
            StorageError: If the run directory does not answer.
        """
        source = make_clip(case.asked.scene, self._form(suite))
        decoded = self._decoded(source)
        path = f"{FOLDER}/{case.name}-{case.key[:8]}.mp4"
        beside = torch.cat([source.frames, decoded.frames], dim=2)
        with self._storage.local_staging(path) as staged:
            write_clip(staged, dataclasses.replace(decoded, frames=beside))
        numbers = {
            "psnr_db": min(MOST_DB, psnr_db(source.frames, decoded.frames)),
            "ssim": ssim(source.frames, decoded.frames),
        }
        if source.audio and decoded.audio:
            numbers["mel_l1"] = self._mel_error(source.audio, decoded.audio)
        found = judge(case, decoded, path)
        return found.model_copy(update={"numbers": numbers | found.numbers})

    def _form(self, suite: ReconstructedSuite) -> Format:
        files = self._ledger.files
        rate = files.audio_vae.sample_rate_hz if files.transformer.has_audio else 24000
        return Format(
            width=suite.width,
            height=suite.height,
            num_frames=suite.num_frames,
            fps=suite.fps,
            sample_rate_hz=rate,
        )

    def _decoded(self, clip: Clip) -> Clip:
        pixels = clip.frames.permute(3, 0, 1, 2).float() / 127.5 - 1
        (video,) = encode_pictures(self._ledger, [pixels], tiled=False)
        audio: Tensor | None = None
        if clip.audio and self._ledger.files.transformer.has_audio:
            (audio,) = encode_sounds(self._ledger, [clip.audio.waveform])
        request = RenderRequest(prompt="a drawn clip", seed=0, fps=clip.fps)
        return decode(self._ledger, request, Latents(video=video, audio=audio)).collect()

    def _mel_error(self, source: Audio, decoded: Audio) -> float:
        """Mean distance of log mel spectrograms, as far as both sounds go."""
        config = self._ledger.files.audio_vae
        rate = config.sample_rate_hz
        mels = [
            log_mel(resample(one.waveform.float(), one.sample_rate_hz, rate), config)
            for one in (source, decoded)
        ]
        frames = min(mel.shape[1] for mel in mels)
        first, second = (mel[:, :frames] for mel in mels)
        return float((first - second).abs().mean())


def _check(suite: ReconstructedSuite, files: ModelFiles) -> None:
    size = suite.model_dump(include={"width", "height", "num_frames", "fps"})
    request = RenderRequest(prompt="a drawn clip", pipeline="one_stage", **size)
    if found := request_faults(request, files):
        lines = (f"suite {suite.name}: field {field!r}: {said}" for field, said in found)
        raise SpecError("\n".join(lines))
