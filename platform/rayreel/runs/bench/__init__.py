"""Benchmarks: our networks against the same work done another way, in one process.

Needs the `dev` extra, which has diffusers.
"""

from rayreel.runs.bench.run import run
from rayreel.runs.bench.spec import BenchSpec

__all__ = ["BenchSpec", "run"]
