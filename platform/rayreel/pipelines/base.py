"""What a pipeline is: a list of phases that a request goes through."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, get_args

from rayreel.checkpoints.files import ModelFiles
from rayreel.config.jobs import ModelFile
from rayreel.config.presets import default_guidance
from rayreel.config.request import RenderRequest
from rayreel.config.sampling import Guidance
from rayreel.diffusion.watch import Watch
from rayreel.pipelines import conditions, phases
from rayreel.pipelines.chain import MemoryStore, first_image, render_chain
from rayreel.pipelines.chunks import is_chained
from rayreel.pipelines.conditions import AudioConditions, VideoConditions
from rayreel.pipelines.decoding import decode
from rayreel.pipelines.enhance import enhance
from rayreel.pipelines.inputs import EncodedRequest
from rayreel.pipelines.joining import join_chunks
from rayreel.pipelines.ledger import ModelLedger
from rayreel.pipelines.phases import Phase
from rayreel.pipelines.resolve import resolve
from rayreel.pipelines.sources import read_sources
from rayreel.pipelines.texts import TextStore
from rayreel.types import Clip, ClipStream, Latents

# What every pipeline reads.
_BASE = tuple(
    f for f in get_args(ModelFile) if f not in {"upsampler", "distilled_lora", "image_model"}
)

Fault = tuple[str, str]
"""A field of a request, and what is wrong with it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PipelineTraits:
    """What there is to know of a pipeline before it runs.

    Attributes:
        stages: Denoising stages; with two, the first one works at half size.
        guided: Whether the first stage takes steps and guidance.
        needs: Fields of the model spec that must be set beside the checkpoint and Gemma.
        uses: Further fields that take part where they are set.
        asks: Fields of a request that must be set.
        takes: Further fields with files, or of a chain, that it knows what to do with.
        makes_video: Whether what comes out has a picture.
        makes_audio: Whether it may have sound.
    """

    stages: int
    guided: bool
    needs: tuple[ModelFile, ...] = ()
    uses: tuple[ModelFile, ...] = ()
    asks: tuple[str, ...] = ()
    takes: tuple[str, ...] = ("images", "chain", "extend")
    makes_video: bool = True
    makes_audio: bool = True

    @property
    def files(self) -> tuple[ModelFile, ...]:
        """Fields of the model spec that change the result."""
        return (*_BASE, *self.needs, *self.uses)


@dataclass(frozen=True, slots=True, kw_only=True)
class Defaults:
    """What a guided request leaves open.

    Attributes:
        steps: Model evaluations of the first stage.
        video: Guidance of the picture.
        audio: Guidance of the sound.
    """

    steps: int
    video: Guidance
    audio: Guidance


class Pipeline:
    """A way of sampling; takes its ledger of networks once and requests per call.

    As it stands it has one stage; pipelines say what they do otherwise. ``generate`` and ``refine``
    are apart so that a job can give each its own workers.
    """

    traits: ClassVar[PipelineTraits]
    # What picture and sound are conditioned on, in the first stage and in the second.
    video_conditions: ClassVar[tuple[VideoConditions, VideoConditions]] = (conditions.pinned,) * 2
    audio_conditions: ClassVar[tuple[AudioConditions, AudioConditions]] = (
        conditions.continued_sound,
    ) * 2
    # Sampler of the second stage.
    refiner: ClassVar[str] = "euler"

    def __init__(self, ledger: ModelLedger, watch: Watch | None = None) -> None:
        """Keep the ledger; networks load when they are first used.

        Args:
            ledger: Lends networks.
            watch: Told of each denoising step, and asked before it whether to go on.
        """
        self.ledger = ledger
        self.watch = watch

    @classmethod
    def guided(cls, request: RenderRequest) -> bool:  # noqa: ARG003 - for pipelines that ask it
        """Whether the request's steps and guidance count."""
        return cls.traits.guided

    @classmethod
    def faults(cls, request: RenderRequest, files: ModelFiles) -> list[Fault]:  # noqa: ARG003
        """What it cannot do of a request, beside what is checked for all pipelines."""
        return []

    @classmethod
    def notes(cls, request: RenderRequest, files: ModelFiles) -> list[str]:  # noqa: ARG003
        """What a person should know of a resolved request."""
        return []

    @classmethod
    def defaults(cls, files: ModelFiles) -> Defaults:
        """Steps and guidance where a request says nothing."""
        video, audio = default_guidance(files.defaults.stg_block)
        return Defaults(steps=files.defaults.steps, video=video, audio=audio)

    @classmethod
    def sampler(cls, files: ModelFiles) -> str:  # noqa: ARG003 - for pipelines that ask it
        """Sampler of the first stage where a request names none."""
        return "euler"

    def first_phase(self, request: RenderRequest) -> Phase:
        """What the first stage runs: at half size if there is a second one."""
        stages, guided = self.traits.stages, self.guided(request)
        phase = phases.first_stage(request, downscale=stages, guided=guided)
        return replace(phase, video=self.video_conditions[0], audio=self.audio_conditions[0])

    def first_weights(self, request: RenderRequest) -> ModelLedger:
        """With which transformer."""
        return self.base(request) if self.guided(request) else self.distilled(request)

    def start(self, batch: Sequence[EncodedRequest]) -> list[Latents] | None:  # noqa: ARG002 - as above
        """What it starts from; ``None`` for noise alone."""
        return None

    def generate(self, batch: Sequence[EncodedRequest]) -> list[Latents]:
        """First stage: from noise to latents, for requests of one ``batch_key``."""
        request = batch[0].request
        ledger, phase = self.first_weights(request), self.first_phase(request)
        return phases.denoise(ledger, batch, phase, self.start(batch), watch=self.watch)

    def refine(
        self,
        batch: Sequence[EncodedRequest],  # noqa: ARG002 - for pipelines of two stages
        latents: Sequence[Latents],
    ) -> list[Latents]:
        """Second stage: from latents to larger, finer ones; a pipeline of one stage has none."""
        return list(latents)

    def decode(self, request: RenderRequest, latents: Latents) -> ClipStream:
        """The clip: its sound now, its frames when they are read."""
        return decode(self.ledger, request, latents)

    def __call__(self, request: RenderRequest) -> Clip:
        """Render one request from prompt to clip.

        Raises:
            ValueError: If the request has no seed.
            MediaError: If a file of it cannot be read.
            Cancelled: If the watch says so.
        """
        if request.seed is None:
            raise ValueError("seed=None: a request on its own needs a seed")
        request = resolve(
            read_sources(request, self.ledger.files).request, self.ledger.files, type(self)
        )
        return self.stream(request).collect()

    def stream(self, request: RenderRequest, texts: TextStore | None = None) -> ClipStream:
        """Render one resolved request from prompt to clip, which is decoded while it is read.

        Args:
            request: With every field set.
            texts: Where encoded and written texts are kept; by default they are not.
        """
        assert request.seed is not None, "resolved requests have a seed"
        if not self.traits.stages:
            return self.decode(request, Latents(video=None, audio=None))
        if is_chained(request):
            chunks = MemoryStore()
            for _ in render_chain(self, request, chunks, texts):
                pass
            return join_chunks(self, request, chunks)
        text = request
        if request.enhance:
            written = enhance(
                self.ledger,
                request.prompt,
                seed=request.seed,
                image=first_image(request),
                store=texts.records if texts else None,
            )
            text = request.model_copy(update={"prompt": written.prompt})
        batch = phases.encode(self.ledger, [text], store=texts)
        latents = self.refine(batch, self.generate(batch))
        return self.decode(request, latents[0])

    def base(self, request: RenderRequest) -> ModelLedger:
        """The transformer with the model's and the request's adapters."""
        files = self.ledger.files
        return self.ledger.with_loras(*files.loras, *map(files.adapter, request.loras))

    def distilled(
        self, request: RenderRequest, *, strength: float | None = None, own: bool = True
    ) -> ModelLedger:
        """The transformer with the distilled adapter too, where the model has one.

        Args:
            request: Names further adapters.
            strength: Of the distilled adapter, in place of the model's.
            own: Whether the model's and the request's other adapters stay.
        """
        adapters = self.base(request).adapters if own else ()
        distilled = self.ledger.files.distilled_lora
        if distilled and strength is not None:
            distilled = replace(distilled, strength=strength)
        return self.ledger.with_loras(*adapters, *([distilled] if distilled else []))
