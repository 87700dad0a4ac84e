"""Near-duplicates among many clips, by perceptual hashes, without comparing all with all."""

from dataclasses import dataclass, field
from itertools import pairwise

_BITS = 256


@dataclass
class NearDuplicates:
    """The hashes that were kept so far.

    Two hashes that differ in at most d bits are equal in one of any d + 1 stretches, so only those
    are compared that share one.

    Attributes:
        distance: Bits that may differ.
    """

    distance: int
    _hashes: list[tuple[int, tuple[str, int], str]] = field(default_factory=list)
    _by_stretch: dict[tuple[int, int], list[int]] = field(default_factory=dict)

    def nearest(self, phash: str, clip: tuple[str, int], name: str) -> str:
        """What a clip is nearly the same as; it is kept in mind where there is nothing.

        Args:
            phash: 64 hexadecimal digits.
            clip: What it is: another row of the very same clip is not meant.
            name: For a person.

        Returns:
            A sentence, empty where there is nothing.
        """
        value = int(phash, 16)
        stretches = self._stretches(value)
        others = {index for part in stretches for index in self._by_stretch.get(part, ())}
        for index in sorted(others):
            other, its_clip, its_name = self._hashes[index]
            away = (value ^ other).bit_count()
            if away <= self.distance and its_clip != clip:
                return f"nearly the same as {its_name}: {away} of {_BITS} bits differ"
        self._hashes.append((value, clip, name))
        for part in stretches:
            self._by_stretch.setdefault(part, []).append(len(self._hashes) - 1)
        return ""

    def _stretches(self, value: int) -> list[tuple[int, int]]:
        count = self.distance + 1
        edges = [_BITS * index // count for index in range(count + 1)]
        return [
            (index, value >> start & (1 << stop - start) - 1)
            for index, (start, stop) in enumerate(pairwise(edges))
        ]
