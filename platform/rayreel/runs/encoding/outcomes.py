"""What became of a clip of the list."""

from dataclasses import dataclass
from typing import Literal

from rayreel.runs.encoding.captions import Caption
from rayreel.runs.encoding.samples import Candidate, Finding


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What became of a candidate.

    Attributes:
        candidate: With what was decided about it.
        status: Whether it is a sample of the dataset.
        finding: Why it is not done.
        caption: Of what got so far.
        sample_id: Of a sample.
        shard: Name of the shard that holds it.
    """

    candidate: Candidate
    status: Literal["done", "dropped", "failed"]
    finding: Finding | None = None
    caption: Caption | None = None
    sample_id: str = ""
    shard: str = ""
