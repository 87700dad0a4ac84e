"""Clips whose texts are encoded on their way: for services, where no list tells them before."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from rayreel.stages.base import ItemFailure, RenderItem, Result, TextItem
from rayreel.stages.text import TextStage, is_written_before, needed_texts


@dataclass
class PromptStage:
    """Writes and encodes what the clips of a batch are made from, each text once.

    Attributes:
        texts: Does it.
    """

    texts: TextStage
    name: str = field(default="text", init=False)

    @property
    def loads(self) -> tuple[str, ...]:
        """Classes of the networks that this process has built so far."""
        return self.texts.loads

    def setup(self) -> None:
        """Open the weight files."""
        self.texts.setup()

    def __call__(self, batch: Sequence[RenderItem]) -> list[Result]:
        """Fill in ``prompts`` and ``notes`` where a prompt is written out before."""
        needed = {
            item.item_id: needed_texts(item.request, self.texts.time_factor) for item in batch
        }
        plain = list(dict.fromkeys(text for texts in needed.values() for text in texts))
        # A text is no name for itself: names are logged.
        works = [
            *(TextItem(item_id=f"text-{number}", text=text) for number, text in enumerate(plain)),
            *(
                TextItem(item_id=item.item_id, text=item.request.prompt, request=item.request)
                for item in batch
                if is_written_before(item.request)
            ),
        ]
        done = self.texts(works) if works else []
        encoded = dict(zip(plain, done, strict=False))
        written = {result.item_id: result for result in done[len(plain) :]}
        return [
            _with_texts(item, [encoded[text] for text in needed[item.item_id]], written)
            for item in batch
        ]


def _with_texts(
    item: RenderItem,
    texts: Sequence[TextItem | ItemFailure],
    written: dict[str, TextItem | ItemFailure],
) -> Result:
    """The item with the prompt that was written for it; or the failure of a text that it needs."""
    own = written.get(item.item_id)
    for result in (*texts, *([own] if own else [])):
        if isinstance(result, ItemFailure):
            return replace(result, item_id=item.item_id, seed=item.seed, attempt=item.attempt)
    if not isinstance(own, TextItem):
        return item
    prompts = (own.written,) if own.written else ()
    return replace(item, prompts=prompts, notes=(*item.notes, *own.notes))
