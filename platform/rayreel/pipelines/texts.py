"""Encoded texts in the record store: what the language model made of them, before any connector.

Whoever denoises needs no language model for a text that is there.
"""

from collections import OrderedDict
from collections.abc import Collection, Mapping
from functools import cached_property

from safetensors.torch import load, save

from rayreel.checkpoints import networks
from rayreel.checkpoints.files import ModelFiles
from rayreel.checkpoints.fingerprint import fingerprint_tensors
from rayreel.data.hashing import canonical_json, content_hash
from rayreel.data.store import Record, RecordStore
from rayreel.types import TextFeatures

KIND = "text"

# Of keys and of what lies under them.
_FORMAT = "1"
# Most rows share one negative prompt, and both stages of a batch its prompts.
_KEPT = 16
_SHORT = 12


class TextStore:
    """Features of texts by what they were made of.

    In the key are the language model's weights, its tokenizer, the feature extractor's weights, the
    text, and the tokens that it was cut to. The dtype is not: stages that compute in different ones
    share what there is.

    Attributes:
        records: Where they lie.
    """

    def __init__(
        self, records: RecordStore, files: ModelFiles, *, length: int | None = None
    ) -> None:
        """Keep the arguments; reads nothing yet.

        Args:
            records: Where they lie.
            files: The model whose texts they are.
            length: Tokens that its texts are cut and filled up to; by default the model's.
        """
        self.records = records
        self._files = files
        self._wanted = length
        self._kept: OrderedDict[str, TextFeatures] = OrderedDict()

    @cached_property
    def _length(self) -> int:
        return self._wanted or self._files.text_encoder.prompt_tokens

    def key(self, text: str) -> str:
        """Identity of a text's features."""
        return content_hash(KIND, canonical_json(self.made_by), text)

    def known(self, texts: Collection[str]) -> set[str]:
        """Those of some texts that are there by now; raises ``RayreelError`` for damaged parts."""
        keys = {text: self.key(text) for text in texts}
        known = self.records.known(set(keys.values()))
        return {text for text, key in keys.items() if key in known}

    def get(self, text: str) -> TextFeatures | None:
        """Features of a text on the CPU, in the dtype that they were computed in.

        Raises:
            RayreelError: If the part that holds them is damaged.
        """
        if text not in self._kept:
            key = self.key(text)
            record = self.records.get(key) if self.records.known([key]) else None
            if record is None:
                return None
            self._kept[text] = _unpacked(record.tensors, self._length)
            if len(self._kept) > _KEPT:
                self._kept.popitem(last=False)
        self._kept.move_to_end(text)
        return self._kept[text]

    def put(self, features: Mapping[str, TextFeatures]) -> None:
        """Keep features by their texts, all of them as one part; at least one.

        Raises:
            ValueError: If texts were cut to another length.
            OSError: If they cannot be written.
        """
        if strange := {one.length for one in features.values()} - {self._length}:
            raise ValueError(
                f"texts of {strange.pop()} tokens do not belong into a store of texts of "
                f"{self._length} tokens"
            )
        made_by = {name: value[:_SHORT] for name, value in self.made_by.items()}
        self.records.put(
            *(
                Record(
                    key=self.key(text),
                    kind=KIND,
                    text=text,
                    tensors=_packed(one),
                    made_by=made_by,
                )
                for text, one in features.items()
            )
        )

    def explain(self, text: str) -> str | None:
        """Why a text is not known, ``None`` if it is; reads every part of the store."""
        if self.known([text]):
            return None
        others = [record.made_by or {} for record in self.records.find(KIND, text)]
        if not others:
            return "this text was never encoded"
        nearest = min((self._changes(made_by) for made_by in others), key=len)
        return f"this text was encoded with {' and '.join(nearest)}"

    def _changes(self, made_by: Mapping[str, str]) -> list[str]:
        """What a record was made of that this store's texts are not."""
        return [
            f"another {name.replace('_', ' ')} ({made_by.get(name)}; here {value[:_SHORT]})"
            for name, value in self.made_by.items()
            if made_by.get(name) != value[:_SHORT]
        ]

    @cached_property
    def made_by(self) -> dict[str, str]:
        """What the features of every text depend on, by name."""
        encoder, extractor = self._files.text_encoder, networks.feature_extractor(self._files)
        return {
            "language_model": content_hash(
                canonical_json(encoder.values), fingerprint_tensors(encoder.file, encoder.names)
            ),
            "tokenizer": content_hash(encoder.tokenizer_json),
            "feature_extractor": content_hash(
                self._files.text.feature_version,
                fingerprint_tensors(extractor.file, extractor.names),
            ),
            "length": str(self._length),
            "format": _FORMAT,
        }


def _packed(features: TextFeatures) -> bytes:
    """One tensor for both streams where they share it: 2.0 projects once for both."""
    video = features.video.cpu().contiguous()
    if features.audio is features.video:
        return save({"both": video})
    return save({"video": video, "audio": features.audio.cpu().contiguous()})


def _unpacked(data: bytes, length: int) -> TextFeatures:
    tensors = load(data)
    if "both" in tensors:
        return TextFeatures(video=tensors["both"], audio=tensors["both"], length=length)
    return TextFeatures(video=tensors["video"], audio=tensors["audio"], length=length)
