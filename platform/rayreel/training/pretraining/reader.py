"""Small heads that read from a stream's text embeddings what a caption says.

They are there for the embeddings to learn what a transformer can find in them: like its
cross-attention, they look for tokens with queries that do not depend on the text. They are thrown
away afterwards.

Letters: B captions, L tokens, D width, C colours.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rayreel.training.pretraining.meaning import (
    MOST_THINGS,
    NONE,
    Classes,
    Meaning,
    SaidThing,
)
from rayreel.world.captions import SOUNDS
from rayreel.world.scene import BACKGROUNDS, COLOURS, MOTIONS, SHAPES, SIZES

_OF_THINGS = {"shape": len(SHAPES), "size": len(SIZES) + 1, "motion": len(MOTIONS)}
_OF_CAPTIONS = {
    "background": len(BACKGROUNDS) + 1,
    "count": MOST_THINGS + 1,
    "sounds": len(SOUNDS),
}


class Reader(nn.Module):
    """One query per colour, and one for everything else that a caption says."""

    def __init__(self, width: int) -> None:
        """Build for a width D of embeddings."""
        super().__init__()
        self.queries = nn.Parameter(torch.randn(len(COLOURS) + len(_OF_CAPTIONS), width))
        self.to_k, self.to_v = nn.Linear(width, width), nn.Linear(width, width)
        self.present = nn.Parameter(torch.randn(len(COLOURS), width) / math.sqrt(width))
        self.heads = nn.ModuleDict(
            {name: nn.Linear(width, size) for name, size in (_OF_THINGS | _OF_CAPTIONS).items()}
        )

    def forward(self, embeddings: Tensor) -> dict[str, Tensor]:
        """Scores of the classes.

        Args:
            embeddings: ``(B, L, D)``.

        Returns:
            Logits by the names of :class:`Classes`: ``(B, C, classes)`` of things, where
            ``present`` is ``(B, C)``; ``(B, classes)`` of captions.
        """
        queries = self.queries.expand(len(embeddings), -1, -1)
        found = F.scaled_dot_product_attention(
            queries, self.to_k(embeddings), self.to_v(embeddings)
        )
        things, others = found[:, : len(COLOURS)], found[:, len(COLOURS) :]
        scores = {name: self.heads[name](things) for name in _OF_THINGS}
        scores["present"] = (things * self.present).sum(dim=-1)
        for place, name in enumerate(_OF_CAPTIONS):
            scores[name] = self.heads[name](others[:, place])
        return scores


def misread(scores: dict[str, Tensor], said: Classes) -> Tensor:
    """How far scores are from what captions say: cross-entropies, added up."""
    losses = [
        F.binary_cross_entropy_with_logits(scores[name], getattr(said, name))
        for name in ("present", "sounds")
    ]
    losses += [
        F.cross_entropy(scores[name], getattr(said, name)) for name in ("background", "count")
    ]
    # Captions that say nothing have no things, and the mean of none is not a number.
    things = (said.shape != NONE).sum().clamp(min=1)
    losses += [
        F.cross_entropy(
            scores[name].flatten(0, 1),
            getattr(said, name).flatten(),
            ignore_index=NONE,
            reduction="sum",
        )
        / things
        for name in _OF_THINGS
    ]
    return torch.stack(losses).sum()


def meanings(scores: dict[str, Tensor]) -> list[Meaning]:
    """The most likely classes of each caption, as what it says."""
    best = {name: value.argmax(dim=-1).tolist() for name, value in scores.items()}
    likely = {name: (scores[name] > 0).tolist() for name in ("present", "sounds")}
    sizes, backgrounds = (*SIZES, None), (*BACKGROUNDS, None)
    return [
        Meaning(
            things=tuple(
                SaidThing(
                    colour=colour,
                    shape=SHAPES[best["shape"][row][slot]],
                    motion=MOTIONS[best["motion"][row][slot]],
                    size=sizes[best["size"][row][slot]],
                )
                for slot, colour in enumerate(COLOURS)
                if likely["present"][row][slot]
            ),
            background=backgrounds[best["background"][row]],
            sounds=frozenset(
                sound for place, sound in enumerate(SOUNDS) if likely["sounds"][row][place]
            ),
        )
        for row in range(len(best["background"]))
    ]
