"""Small networks of sound, and runs in which they learn a little."""

from pathlib import Path
from typing import Any

from safetensors.torch import load_file
from torch import Tensor

from rayreel.checkpoints.files import ModelFiles
from rayreel.checkpoints.tiny import locate_model
from rayreel.config.pretrain import PretrainSpec, StretchSpec
from rayreel.training.pretraining.loop import pretrain
from rayreel.training.pretraining.parts import make_part

STRETCH = StretchSpec(steps=1, batch_size=2, num_frames=1)
"""One frame of a clip lasts as long as five of a mel spectrogram."""

ARCHITECTURE: dict[str, Any] = {
    "audio_vae": {
        "model": {
            "params": {
                "ddconfig": {
                    "z_channels": 2,
                    "ch": 32,
                    "ch_mult": [1, 1, 1],
                    "num_res_blocks": 1,
                    "attn_resolutions": [],
                    "mid_block_add_attention": False,
                }
            }
        }
    },
    "vocoder": {
        "upsample_initial_channel": 16,
        "upsample_rates": [10, 6, 4],
        "upsample_kernel_sizes": [20, 12, 8],
        "resblock_kernel_sizes": [3],
        "resblock_dilation_sizes": [[1]],
    },
}


def spec_of(part: str, output: Path, **fields: Any) -> PretrainSpec:
    fields = {"checkpoint_interval": 2, "optimization": {"ema": 0.5}, **fields}
    stretches = [STRETCH.model_copy(update={"steps": 4}).model_dump()]
    return PretrainSpec.model_validate(
        {"part": part, "architecture": "", "output": str(output), "stretches": stretches, **fields}
    )


def learn(spec: PretrainSpec, stop_after: int = -1) -> dict[str, Tensor]:
    """What a run writes; as a person would, it may be interrupted."""

    def told(line: Any) -> None:
        if line["step"] == stop_after:
            raise KeyboardInterrupt

    pretrain(spec, make_part(spec, ARCHITECTURE), told)
    return load_file(written(spec))


def written(spec: PretrainSpec) -> Path:
    return Path(spec.output) / f"{spec.part}.safetensors"


def files_of(**paths: Path) -> ModelFiles:
    """The tiny model with other files for some of its networks."""
    model = locate_model("tiny")
    return ModelFiles(model.model_copy(update={name: str(path) for name, path in paths.items()}))
