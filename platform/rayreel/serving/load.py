"""How busy the pools are: for whoever scales them, or tells a client how long it takes."""

from collections.abc import Mapping

from pydantic import Field

from rayreel.config.base import StrictModel


class PoolLoad(StrictModel):
    """How busy one pool is."""

    replicas: int = Field(ge=0, description="actors that are ready")
    waiting_s: float = Field(ge=0, description="seconds of its work in jobs that wait")
    running_s: float = Field(ge=0, description="seconds of its work that is left of running jobs")
    jobs: int = Field(ge=0, description="jobs that wait or run, and still need it")
    idle_s: float = Field(ge=0, description="for how long it has had no work; 0 while it has")
    start_s: float = Field(default=0.0, ge=0, description="that its actors took to start")


class Load(StrictModel):
    """How busy all pools are."""

    at: float = Field(description="when it was told, in seconds since 1970")
    pools: Mapping[str, PoolLoad] = Field(description="by name")
