"""Who writes captions: a server that speaks OpenAI's protocol, or a local model."""

import base64
import json
import os
import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import urlsplit

from pydantic import BaseModel, Field, ValidationError

from rayreel.checkpoints.fingerprint import fingerprint_folder
from rayreel.config.encode import CaptionSpec, LocalCaptioner, OpenAICaptioner
from rayreel.data.hashing import canonical_json, content_hash
from rayreel.errors import CheckpointError, ItemError, RetryableError, SpecError
from rayreel.pipelines.caption_views import INSTRUCTIONS, View, jpeg_bytes
from rayreel.pipelines.devices import Device

if TYPE_CHECKING:
    from openai import APIStatusError

KIND = "caption"

MOST_CHARACTERS = 20_000
"""Of a caption. Nobody writes so many in one paragraph; servers need not keep to a limit."""

ANSWER_KEY = "combined_caption_english"
"""Under which models that are asked for JSON give the caption."""

# Of keys and of how answers are read and clips shown.
_FORMAT = "1"
_KEY_NAME = "OPENAI_API_KEY"
# The library wants one; servers on one's own machine do not.
_NO_KEY = "none"
# Neither the key nor the model: every request would be answered so.
_REFUSES_ALL = (401, 403, 404)
_MAY_GO_OTHERWISE = (408, 409, 425, 429)
_MOST_SAID = 300

_THOUGHT_ENDS = re.compile(r"</think(?:ing)?>")
_THOUGHT_STARTS = re.compile(r"<think(?:ing)?>")
_FENCE = re.compile(r"^```\w*")
_JSON_CAPTION = re.compile(rf'"{ANSWER_KEY}"\s*:\s*"((?:[^"\\]|\\.)*)', re.DOTALL)
# Control characters, those that turn the direction of writing, and halves of pairs.
_UNPRINTABLE = re.compile(
    r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ufeff\ud800-\udfff]"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What a captioner wrote.

    Attributes:
        text: As it came.
        cut: Whether it ends because it reached the most tokens.
    """

    text: str
    cut: bool = False


class Captioner(Protocol):
    """Writes captions; may be called from several threads."""

    @property
    def loads(self) -> tuple[str, ...]:
        """Classes of the networks that it has built in this process."""

    def __call__(self, view: View) -> Answer:
        """Describe a clip.

        Raises:
            ItemError: If there is no caption for this clip; ``RetryableError`` if another try may
                bring one.
            SpecError: If there is none for any clip, such as for a wrong key.
        """


def make_captioner(spec: CaptionSpec, device: Device) -> Captioner:
    """The captioner of a spec, loaded.

    Raises:
        CheckpointError: If a local model does not load.
        ValueError: If the spec has none.
    """
    if isinstance(spec.captioner, OpenAICaptioner):
        return ServerCaptioner(spec.captioner, max_tokens=spec.max_tokens)
    if isinstance(spec.captioner, LocalCaptioner):
        # Importing transformers takes seconds.
        from rayreel.pipelines.local_captioner import TransformersCaptioner  # noqa: PLC0415

        return TransformersCaptioner(spec.captioner, device, max_tokens=spec.max_tokens)
    raise ValueError("captions.captioner is not set")


def caption_key(spec: CaptionSpec, *, content: str, start: int, num_frames: int) -> str:
    """Identity of a caption: the stretch of a file, what is shown of it, and who is asked what.

    Where a server runs is not part of it, nor is where a model's folder lies.

    Args:
        spec: With a captioner.
        content: Hash of the file's bytes.
        start: First frame of the stretch.
        num_frames: Its length.

    Raises:
        CheckpointError: If a local model is not there.
    """
    captioner = spec.captioner
    if isinstance(captioner, LocalCaptioner):
        writer: dict[str, Any] = {"weights": _fingerprint(captioner.folder)}
    elif captioner:
        writer = {"model": captioner.model, "audio": captioner.audio}
    else:
        raise ValueError("captions.captioner is not set")
    asked = {
        "format": _FORMAT,
        "instruction": spec.instruction or dict(INSTRUCTIONS),
        "fps": spec.fps,
        "max_frames": spec.max_frames,
        "max_tokens": spec.max_tokens,
        "start": start,
        "num_frames": num_frames,
    }
    return content_hash(KIND, canonical_json(writer | asked), content)


def caption_writer(spec: CaptionSpec) -> str:
    """Who writes the captions of a spec, for people."""
    if isinstance(spec.captioner, LocalCaptioner):
        return Path(spec.captioner.folder).name
    return spec.captioner.model if spec.captioner else "the list"


def caption_of(answer: Answer) -> str:
    """The caption in an answer, which is never more than text.

    What a model thought before it is left out. It may stand alone, or in JSON under
    ``combined_caption_english``, even where that is cut off.

    Raises:
        ItemError: If there is none, or a text much longer than a caption.
    """
    said = _THOUGHT_STARTS.split(_THOUGHT_ENDS.split(answer.text)[-1])[0].strip()
    if _FENCE.match(said):
        said = _FENCE.sub("", said).removesuffix("```").strip()
    if said.startswith("{"):
        found = _JSON_CAPTION.search(said)
        if found is None:
            raise ItemError(f"the captioner's answer is JSON without {ANSWER_KEY}: {_short(said)}")
        said = _unescaped(found[1])
    caption = _UNPRINTABLE.sub(" ", said).strip()
    if not caption:
        cut = " before captions.max_tokens cut it: allow more" if answer.cut else ""
        raise ItemError(f"the captioner's answer has no words{cut}")
    if len(caption) > MOST_CHARACTERS:
        raise ItemError(
            f"the captioner's answer has {len(caption)} characters; a caption has at most "
            f"{MOST_CHARACTERS}"
        )
    return caption


class ServerCaptioner:
    """Asks a server with OpenAI's chat completions."""

    loads: tuple[str, ...] = ()

    def __init__(self, choice: OpenAICaptioner, *, max_tokens: int) -> None:
        """Make a client; nothing is sent yet.

        Args:
            choice: Which server and model.
            max_tokens: Of an answer.
        """
        from openai import OpenAI  # noqa: PLC0415 - slow

        self._choice = choice
        self._max_tokens = max_tokens
        self._key = os.environ.get(_KEY_NAME, "").strip() or _NO_KEY
        self._client = OpenAI(
            base_url=choice.url,
            api_key=self._key,
            timeout=choice.timeout_s,
            max_retries=choice.max_retries,
            # An answer takes seconds; a connection that is kept outlives all who could close it.
            default_headers={"Connection": "close"},
        )

    def __call__(self, view: View) -> Answer:
        """Describe a clip; see ``Captioner``."""
        from openai import APIConnectionError, APIStatusError  # noqa: PLC0415 - slow

        # What the library raises is not chained: its errors hold the request with the key in it.
        try:
            response = self._client.chat.completions.with_raw_response.create(
                model=self._choice.model,
                messages=[{"role": "user", "content": _parts(view)}],
                temperature=0,
                max_tokens=self._max_tokens,
            )
        except APIStatusError as error:
            raise self._refused(error) from None
        except APIConnectionError as error:
            tries = self._choice.max_retries + 1
            raise RetryableError(
                f"the captioner at {self._server} did not answer in {tries} tries of "
                f"{self._choice.timeout_s:g} s: {self._said(error)}"
            ) from None
        return self._answer(response.text)

    def _refused(self, error: "APIStatusError") -> Exception:
        status = error.status_code
        what = f"the captioner at {self._server} answered with status {status}: {self._said(error)}"
        if status in _REFUSES_ALL:
            return SpecError(
                f"{what}; see captions.captioner.url and model, and {_KEY_NAME} where the job runs"
            )
        if status in _MAY_GO_OTHERWISE or status >= 500:
            return RetryableError(what)
        return ItemError(what)

    def _answer(self, body: str) -> Answer:
        try:
            choice = _Completion.model_validate_json(body).choices[0]
        except ValidationError:
            raise RetryableError(
                f"the captioner at {self._server} answered with no chat completion: "
                f"{self._said(body)}"
            ) from None
        if choice.message.refusal or choice.finish_reason == "content_filter":
            raise ItemError(
                "the captioner refuses to describe this clip: "
                f"{self._said(choice.message.refusal or choice.finish_reason)}"
            )
        return Answer(text=choice.message.content or "", cut=choice.finish_reason == "length")

    @property
    def _server(self) -> str:
        """Host and port, without a login."""
        return urlsplit(self._choice.url).netloc.rpartition("@")[2]

    def _said(self, what: object) -> str:
        """What a server said, which may be the key that it was sent."""
        said = str(what)
        return _short(said if self._key == _NO_KEY else said.replace(self._key, "***"))


class _Message(BaseModel):
    content: str | None = None
    refusal: str | None = None


class _Choice(BaseModel):
    message: _Message
    finish_reason: str | None = None


class _Completion(BaseModel):
    """What is read of a chat completion."""

    choices: list[_Choice] = Field(min_length=1)


def _parts(view: View) -> Any:  # noqa: ANN401 - the library's types are those of each part
    parts: list[dict[str, Any]] = [
        {"type": "image_url", "image_url": {"url": f"data:image/jpeg;base64,{_text(jpeg)}"}}
        for jpeg in map(jpeg_bytes, view.frames)
    ]
    if view.sound:
        sound = {"data": _text(view.sound), "format": "wav"}
        parts.append({"type": "input_audio", "input_audio": sound})
    return [*parts, {"type": "text", "text": view.text}]


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")


def _unescaped(content: str) -> str:
    """What is between the quotation marks of a JSON string, which may end anywhere."""
    # Of an escape that was cut off, nothing is left.
    whole = re.sub(r"(?<!\\)((?:\\\\)*)\\(?:u[0-9a-fA-F]{0,3})?$", r"\1", content)
    try:
        return str(json.loads(f'"{whole}"', strict=False))
    except ValueError:
        return whole


def _short(text: str) -> str:
    words = " ".join(text.split())
    return words if len(words) <= _MOST_SAID else f"{words[:_MOST_SAID]}..."


@cache
def _fingerprint(folder: str) -> str:
    if not Path(folder).is_dir():
        raise CheckpointError(f"captions.captioner.folder {folder} is not a folder")
    return fingerprint_folder(Path(folder))
