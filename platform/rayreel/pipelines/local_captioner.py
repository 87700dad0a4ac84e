"""Captions from an image-text model of ``transformers`` in this process.

A module of its own because importing transformers takes seconds.
"""

from pathlib import Path
from threading import Lock
from typing import Any

import torch
from safetensors import SafetensorError
from transformers import AutoModelForImageTextToText, AutoProcessor
from transformers.utils import logging as transformers_logging

from rayreel.config.encode import LocalCaptioner
from rayreel.errors import CheckpointError
from rayreel.pipelines.caption_views import View
from rayreel.pipelines.captioners import Answer
from rayreel.pipelines.devices import Device

# Their stubs know too little of what comes out.
_MODELS: Any = AutoModelForImageTextToText
_PROCESSORS: Any = AutoProcessor


class TransformersCaptioner:
    """Asks a local model, one clip at a time; the likeliest token always, so it never varies."""

    def __init__(self, choice: LocalCaptioner, device: Device, *, max_tokens: int) -> None:
        """Load the model. Nothing is downloaded, and no code of the folder runs.

        Args:
            choice: Its folder.
            device: Where it computes, and in which dtype.
            max_tokens: Of an answer.

        Raises:
            CheckpointError: If the folder is not that of such a model, or not complete.
        """
        self._max_tokens = max_tokens
        self._device = torch.device(device.name)
        self._dtype = device.torch_dtype
        # One device computes; other threads read what comes next.
        self._turn = Lock()
        self._processor, self._model = _loaded(choice.folder, self._dtype)
        self._model = self._model.to(self._device).eval()

    @property
    def loads(self) -> tuple[str, ...]:
        """The model's class."""
        return (type(self._model).__name__,)

    @torch.inference_mode()
    def __call__(self, view: View) -> Answer:
        """Describe a clip by its frames; see ``Captioner``."""
        images = [{"type": "image", "image": frame} for frame in view.frames]
        content = [*images, {"type": "text", "text": view.text}]
        inputs = self._processor.apply_chat_template(
            [{"role": "user", "content": content}],
            add_generation_prompt=True,
            tokenize=True,
            return_dict=True,
            return_tensors="pt",
        )
        tokenizer = self._processor.tokenizer
        with self._turn:
            output = self._model.generate(
                **inputs.to(self._device, dtype=self._dtype),
                do_sample=False,
                max_new_tokens=self._max_tokens,
                pad_token_id=tokenizer.pad_token_id,
                # Folders set these for sampling, and where nothing is drawn they are warned about.
                temperature=None,
                top_k=None,
                top_p=None,
            )
        answer = output[0, inputs["input_ids"].shape[1] :].tolist()
        return Answer(
            text=tokenizer.decode(answer, skip_special_tokens=True),
            cut=len(answer) >= self._max_tokens and answer[-1] not in self._stop_ids,
        )

    @property
    def _stop_ids(self) -> tuple[int, ...]:
        """Tokens that end an answer."""
        ids = self._model.generation_config.eos_token_id
        return tuple(ids) if isinstance(ids, list) else (ids,)


def _loaded(folder: str, dtype: torch.dtype) -> tuple[Any, Any]:
    """Processor and model; strictly: transformers would make up what is missing."""
    if not Path(folder).is_dir():
        raise CheckpointError(f"captions.captioner.folder {folder} is not a folder")
    # Its bars would end up in the logs of workers.
    transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    options: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
    try:
        processor = _PROCESSORS.from_pretrained(folder, **options)
        model, info = _MODELS.from_pretrained(
            folder, **options, dtype=dtype, use_safetensors=True, output_loading_info=True
        )
    except (OSError, ValueError, KeyError, RuntimeError, ImportError, SafetensorError) as error:
        raise CheckpointError(f"captioner {folder}: {error}") from error
    if missing := sorted(info["missing_keys"]):
        raise CheckpointError(
            f"captioner {folder}: {len(missing)} weights are missing, such as {missing[0]}"
        )
    tokenizer = getattr(processor, "tokenizer", None)
    if tokenizer is None:
        raise CheckpointError(f"captioner {folder}: its processor takes no images")
    # Older folders keep it with the tokenizer.
    processor.chat_template = processor.chat_template or tokenizer.chat_template
    if not processor.chat_template:
        raise CheckpointError(
            f"captioner {folder} has no chat template: it is not trained to follow instructions"
        )
    return processor, model
