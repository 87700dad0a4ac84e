"""Lines of the metrics as a run writes them."""

from typing import Any

from rayreel.config.train import TrainSpec


def line(step: int, **changes: Any) -> dict[str, Any]:
    """What is written of a step; its loss tells the step."""
    values = {
        "step": step,
        "epoch": 0,
        "samples": [step],
        "loss": 1 / step,
        "loss_video": 0.75 / step,
        "loss_audio": 0.25 / step,
        "sigma_loss": {"0.25-0.50": 1 / step},
        "learning_rate": 1e-4,
        "grad_norm": 0.5,
        "tokens": 100,
        "seconds": 0.5,
        "wait_seconds": 0.1,
        "tokens_per_s": 200.0,
        "flops_per_s": 1e9,
        "utilisation": 0.25,
        "memory_gib": 1.5,
        "time": 1_700_000_000.0 + step,
    }
    return values | changes


def spec(output: object, **tracking: Any) -> TrainSpec:
    """A run of the tiny model."""
    return TrainSpec.model_validate(
        {"dataset": "data", "output": str(output), "tracking": tracking}
    )
