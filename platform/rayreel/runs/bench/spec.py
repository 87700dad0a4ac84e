"""What a benchmark compares: one entry per comparison, each of a known kind."""

from typing import Annotated, Literal, Self

from pydantic import BeforeValidator, Field, PlainSerializer, model_validator

from rayreel.config.base import StrictModel
from rayreel.config.buckets import Bucket, split_buckets

Generation = Literal["2.0", "2.3"]
TrainMode = Literal["full", "lora"]
Sizes = Annotated[
    tuple[Bucket, ...],
    BeforeValidator(split_buckets),
    PlainSerializer(lambda sizes: ";".join(map(str, sizes))),
]


class LoadCase(StrictModel):
    """Our reader and builder against ``torch.load`` of a copy of the same tensors."""

    type: Literal["load"]
    width: int = Field(description="of the transformer that is loaded")
    layers: int = Field(description="its blocks; 11 of width 1024 are 1.1 GB")


class TransformerCase(StrictModel):
    """One forward pass of the 2.0 transformer."""

    type: Literal["transformer"]
    width: int = Field(description="of the video stream; the audio stream is half as wide")
    layers: int
    frames: int = Field(description="latent frames of 6 x 8 positions, a video token each")
    audio_tokens: int
    text_tokens: int


class VideoDecoderCase(StrictModel):
    """Decoding of one latent with the published blocks."""

    type: Literal["video_decoder"]
    generation: Generation
    base_channels: int = Field(description="of the last block; 128 in the published files")
    frames: int = Field(description="of the latent")
    height: int = Field(description="of the latent")
    width: int = Field(description="of the latent")


class VocoderCase(StrictModel):
    """Generation of a waveform with the published layers."""

    type: Literal["vocoder"]
    generation: Generation
    channels: int = Field(description="of the first layer; published: 1024 (2.0), 1536 (2.3)")
    frames: int = Field(description="of the mel spectrogram; 100 are one second")


class DecodeMemoryCase(StrictModel):
    """Peak memory of a decode in tiles and of one without, each in a process of its own."""

    type: Literal["decode_memory"]
    base_channels: int
    video_frames: tuple[int, ...] = Field(description="8k + 1 each")
    height: int = Field(description="of the latent")
    width: int = Field(description="of the latent")


class RenderMemoryCase(StrictModel):
    """Memory of a process that renders again and again."""

    type: Literal["render_memory"]
    renders: int
    warm_up: int = Field(description="renders before memory counts")


class ClipsCase(StrictModel):
    """Clips of the tiny model, from prompts to files, with classifier-free guidance alone."""

    pipeline: Literal["one_stage", "two_stage", "distilled"] = "one_stage"
    width: int
    height: int
    frames: int = Field(description="8k + 1")
    steps: int = Field(default=8, description="guided ones; distilled has 8 and 3 of its own")
    clips: int = Field(description="in one call")


class DiffusersLoopCase(ClipsCase):
    """Our pipeline against a loop over diffusers' pipeline with the same weights."""

    type: Literal["diffusers_loop"]
    pipeline: Literal["one_stage"] = "one_stage"


class ResidentCase(ClipsCase):
    """Networks that stay in memory against networks that are built anew for each clip."""

    type: Literal["resident"]


class BatchesCase(ClipsCase):
    """Clips denoised in one batch against the same ones by one, by the stages of a job."""

    type: Literal["batches"]


class JobCase(ClipsCase):
    """Clips rendered by a job; of more than 64, workers start anew for the others."""

    workers: int = Field(default=2, description="actors, of one CPU each")
    batch: int = Field(default=8, description="clips that are denoised together, at most")


class JobLoopCase(JobCase):
    """A job, its cluster started for it, against a loop over diffusers' pipeline."""

    type: Literal["job_against_loop"]
    pipeline: Literal["one_stage"] = "one_stage"


class RepeatedPromptsCase(JobCase):
    """A job whose prompts all come twice against one whose prompts are all different."""

    type: Literal["repeated_prompts"]


class WarmStoreCase(JobCase):
    """A job whose prompts are all in the store against the one that put them there."""

    type: Literal["warm_store"]


class RayOverheadCase(JobCase):
    """A job with texts in the store against its stages in a loop, without Ray."""

    type: Literal["ray_overhead"]
    workers: Literal[1] = 1


AnyJobCase = JobLoopCase | RepeatedPromptsCase | WarmStoreCase | RayOverheadCase


class ShardingCase(StrictModel):
    """A queue of batches against a fixed share for each worker, by simulation."""

    type: Literal["sharding"]
    clips: int = Field(description="of one corpus")
    workers: int
    alpha: float = Field(gt=1, description="of the Pareto distribution of costs; 1 is the heaviest")
    longest: float = Field(
        default=1000, gt=1, description="cost that no clip exceeds; the least is 1"
    )
    error: float = Field(
        default=0.2, ge=0, description="of estimates: standard deviation of their logarithm"
    )
    batch: int = Field(default=8, ge=1, description="clips that are sent out together, at most")
    waiting: int = Field(
        default=1, ge=0, description="batches that wait at a worker; as many as wait at an actor"
    )
    corpora: int = Field(default=20, ge=1, description="drawn with seeds 0, 1 and so on")


class TextBatchesCase(StrictModel):
    """Captions encoded in batches of like length against other ways, by the tiny model."""

    type: Literal["text_batches"]
    texts: int = Field(ge=2)
    batch: int = Field(default=16, ge=2, description="texts that are encoded together")
    shortest: int = Field(default=16, ge=1, description="tokens")
    longest: int = Field(default=512, description="tokens; most texts are much shorter")


class EncodeClipsCase(StrictModel):
    """Generated clips with sound and captions, encoded by a job with the tiny model."""

    sources: Sizes = Field(min_length=1, description="sizes that files have by turns, as WxHxF")
    buckets: Sizes = Field(min_length=1, description="sizes that they are brought to")
    workers: int = Field(default=2, description="actors, of one CPU each")
    batch: int = Field(
        default=1, description="clips that share calls of the encoders; a CPU gains nothing by it"
    )


class EncodeLoopCase(EncodeClipsCase):
    """An encode job, its cluster started for it, against a script that takes clip after clip."""

    type: Literal["encode_against_script"]
    clips: int = Field(ge=2, description="as costly as each other, or the pace tells little")


class EncodeMemoryCase(EncodeClipsCase):
    """Memory of the driver and the workers of encode jobs."""

    type: Literal["encode_memory"]
    clips: tuple[int, ...] = Field(description="of each job")


class EncodeBytesCase(EncodeClipsCase):
    """Size of the samples that an encode job writes, by part."""

    type: Literal["encode_bytes"]
    clips: int = Field(ge=1)


AnyEncodeCase = ShardingCase | TextBatchesCase | EncodeLoopCase | EncodeMemoryCase | EncodeBytesCase


class TrainClipsCase(EncodeClipsCase):
    """Generated clips of one size, encoded first, that the tiny model is trained on."""

    buckets: Sizes = Field(min_length=1, max_length=1, description="the size of all samples")
    clips: int = Field(ge=1)


class TrainLoopCase(TrainClipsCase):
    """A training run against a plain PyTorch loop over the same batches, which lie in memory."""

    type: Literal["train_against_loop"]
    samples: int = Field(ge=1, description="of one optimiser step")
    epochs: int = Field(
        default=3, ge=1, description="that are timed, after a first one in which texts are read"
    )
    modes: tuple[TrainMode, ...] = Field(default=("full", "lora"), min_length=1)


class TrainScalingCase(TrainClipsCase):
    """Tokens per second of one process and of two, with as many samples for each of them."""

    type: Literal["train_scaling"]
    samples: int = Field(ge=1, description="of one optimiser step, of each process")
    steps: int = Field(
        ge=2, description="the second half is timed: each process reads texts when they first come"
    )
    mode: TrainMode = "full"
    shardings: tuple[Literal["full", "replicate"], ...] = Field(
        default=("full", "replicate"), min_length=1
    )


class TrainPaddingCase(StrictModel):
    """Tokens that are computed for nothing with samples of many sizes, by simulation."""

    type: Literal["train_padding"]
    buckets: Sizes = Field(min_length=1, description="sizes of samples, for a published video VAE")
    counts: tuple[int, ...] = Field(description="samples of each size")
    worlds: tuple[int, ...] = Field(default=(1, 2, 8), description="processes that train together")
    batch_sizes: tuple[int, ...] = Field(description="samples of one optimiser step")
    epochs: int = Field(default=3, ge=1)

    @model_validator(mode="after")
    def _counts_each_bucket(self) -> Self:
        if len(self.counts) != len(self.buckets):
            raise ValueError(f"{len(self.counts)} counts for {len(self.buckets)} buckets")
        return self


class ServiceCase(ClipsCase):
    """Clips made by services of the tiny model, which are started for it, and asked over HTTP."""


class ServicePlacementsCase(ServiceCase):
    """A service with its stages in pools of their own against one with a single pool."""

    type: Literal["service_placements"]
    singles: int = Field(ge=1, description="of the clips: come by one, and the others in a burst")

    @model_validator(mode="after")
    def _some_are_left(self) -> Self:
        if self.singles >= self.clips:
            raise ValueError(f"singles={self.singles} leave no burst of {self.clips} clips")
        return self


class ServiceBatchesCase(ServiceCase):
    """A burst of like jobs for a service that batches them against one that does not."""

    type: Literal["service_batches"]
    batch: int = Field(default=4, ge=2, description="clips that are denoised together, at most")


AnyServiceCase = ServicePlacementsCase | ServiceBatchesCase
AnyTrainCase = TrainLoopCase | TrainScalingCase | TrainPaddingCase

Case = Annotated[
    LoadCase
    | TransformerCase
    | VideoDecoderCase
    | VocoderCase
    | DecodeMemoryCase
    | RenderMemoryCase
    | DiffusersLoopCase
    | ResidentCase
    | BatchesCase
    | AnyEncodeCase
    | AnyTrainCase
    | AnyJobCase
    | AnyServiceCase,
    Field(discriminator="type"),
]


class BenchSpec(StrictModel):
    """Comparisons to make, in order."""

    seconds: float = Field(
        default=6.0, description="for the calls of one comparison; at least two of each are made"
    )
    cases: tuple[Case, ...]
