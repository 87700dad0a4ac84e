"""What a person writes to run a service."""

from typing import Literal, Self

from pydantic import Field, model_validator

from rayreel.config.base import StrictModel
from rayreel.config.jobs import ModelSetup

Priority = Literal["high", "normal", "low"]


class QueueSpec(StrictModel):
    """In which order jobs run, how they share batches, and how many may wait."""

    max_jobs: int = Field(default=1000, ge=1, description="jobs that may wait; more are refused")
    max_jobs_per_key: int = Field(default=200, ge=1, description="of them, of one API key")
    batch_wait_s: float = Field(
        default=0.1,
        ge=0,
        allow_inf_nan=False,
        description="how long a job waits for like ones to share its batch",
    )
    stretch: float = Field(
        default=4.0,
        ge=0,
        allow_inf_nan=False,
        description="a job's place in the queue is the time when it came and so many times its "
        "cost: short jobs pass long ones that have not waited as long; 0 for first come, first "
        "served",
    )
    priority_s: float = Field(
        default=600.0,
        ge=0,
        allow_inf_nan=False,
        description="seconds that a job of high priority is put before the time when it came, and "
        "one of low priority behind it",
    )
    attempts: int = Field(
        default=3, ge=1, description="tries of a job whose worker was lost or ran out of memory"
    )
    stale_s: float = Field(
        default=15.0,
        ge=1,
        allow_inf_nan=False,
        description="a running job whose dispatcher gave no sign of life for this long is taken "
        "over by another",
    )
    stall_s: float = Field(
        default=1800.0,
        ge=1,
        allow_inf_nan=False,
        description="a running job that makes no progress for this long is started again",
    )


class ScalingSpec(StrictModel):
    """How pools between their `replicas` and `max_replicas` follow the work that waits."""

    target_wait_s: float = Field(
        default=30.0,
        gt=0,
        allow_inf_nan=False,
        description="there are as many actors as do what waits, in seconds of work, in this time",
    )
    shrink_s: float = Field(
        default=120.0,
        ge=0,
        allow_inf_nan=False,
        description="how long fewer actors must have been enough before there are fewer",
    )
    idle_s: float | None = Field(
        default=None,
        gt=0,
        allow_inf_nan=False,
        description="a pool without work for this long has no actors at all until there is some; "
        "by default it keeps `replicas`",
    )


class RequestLimits(StrictModel):
    """What a request may ask for, beside what the model allows."""

    max_pixels: int = Field(default=2048 * 1152, ge=1, description="of a frame")
    max_frames: int = Field(default=2881, ge=1, description="of a clip")
    max_prompt: int = Field(default=10_000, ge=1, description="characters of a prompt")


class UploadSpec(StrictModel):
    """What files of requests may be like."""

    max_bytes: int = Field(default=200 * 2**20, ge=1, description="of one request, all files")
    max_pixels: int = Field(default=4096 * 4096, ge=1, description="of an image or a frame")
    max_frames: int = Field(default=3000, ge=1, description="of a video")
    max_video_pixels: int = Field(
        default=2**30, ge=1, description="of all frames of a video, which may be held at a time"
    )
    max_seconds: float = Field(
        default=300.0, gt=0, allow_inf_nan=False, description="length of a video or of sound"
    )
    check_s: float = Field(
        default=20.0,
        gt=0,
        allow_inf_nan=False,
        description="a file that takes longer to be looked at is refused",
    )
    url_hosts: tuple[str, ...] = Field(
        default=(),
        description="hosts that files of requests may be fetched from, by https; none by default",
    )


class ServeSpec(ModelSetup):
    """An HTTP service that makes clips."""

    name: str = Field(
        default="rayreel",
        pattern=r"[A-Za-z0-9._-]{1,64}",
        description="of the model, as clients say it",
    )
    output: str = Field(
        default="runs/serve",
        description="service directory, a folder or a URI: clips, their ledger, uploads",
    )
    database: str | None = Field(
        default=None,
        description="SQLAlchemy URL of the jobs, such as postgresql+psycopg://host/name; by "
        "default jobs.sqlite in the output, which must be a local folder then",
    )
    store: str | None = Field(
        default=None,
        description="folder or URI of encoded and written prompts and of measured costs; by "
        "default the output",
    )
    keep_latents: bool = Field(
        default=True, description="whether latents are kept, for exact continuations"
    )
    retention_s: float | None = Field(
        default=7 * 86400.0,
        gt=0,
        allow_inf_nan=False,
        description="finished jobs and their files are removed after so long; none keeps them",
    )
    auth: Literal["auto", "keys", "off"] = Field(
        default="auto",
        description="whether requests need an API key; auto: unless the service listens on the "
        "loopback alone",
    )
    adapters: int = Field(
        default=2, ge=1, description="sets of adapters of requests that an actor holds at a time"
    )
    ingress_replicas: int = Field(default=1, ge=1, description="actors that answer HTTP requests")
    drain_s: float = Field(
        default=60.0,
        ge=0,
        allow_inf_nan=False,
        description="how long work may go on in actors that are stopped; the rest is queued again",
    )
    queue: QueueSpec = Field(default_factory=QueueSpec)
    scaling: ScalingSpec = Field(default_factory=ScalingSpec)
    requests: RequestLimits = Field(default_factory=RequestLimits)
    uploads: UploadSpec = Field(default_factory=UploadSpec)
    traces: str | None = Field(
        default=None,
        description="where OpenTelemetry spans go: a collector's http address, or a local folder; "
        "by default what OTEL_EXPORTER_OTLP_ENDPOINT says, or nowhere",
    )

    @model_validator(mode="after")
    def _placement_is_said(self) -> Self:
        if self.placement == "auto":
            raise ValueError("placement auto is for lists of clips; expected fused or split")
        return self

    @model_validator(mode="after")
    def _jobs_have_a_database(self) -> Self:
        if self.database is None and "://" in self.output:
            raise ValueError(
                f"output {self.output} is no local folder, where jobs.sqlite could be; set "
                "database, such as postgresql+psycopg://host/name"
            )
        if self.database is None and "?" in self.output:
            raise ValueError(f"output {self.output} has a '?', which the URL of a database ends at")
        return self

    @property
    def database_url(self) -> str:
        """SQLAlchemy URL of the jobs."""
        return self.database or f"sqlite:///{self.output}/jobs.sqlite"
