"""A render job as it was written becomes a spec with absolute paths."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from rayreel.config.jobs import AdapterSpec, ModelSpec, RenderSpec
from rayreel.config.load import load_spec, parse
from rayreel.data.manifest import SUFFIXES
from rayreel.errors import SpecError


def read_render_spec(
    path: str, overrides: Iterable[str] = (), output: str | None = None
) -> RenderSpec:
    """Read a render spec, or make one for a bare prompt list.

    Args:
        path: YAML spec, or a prompt list to render with everything at its default.
        overrides: ``key=value`` texts that win over the file.
        output: Run directory that wins over both.

    Returns:
        The spec. Relative prompts and weights are taken from the spec's folder, or from the current
        one where there is no spec; a relative output always from the current one.

    Raises:
        SpecError: If the file is missing or wrong.
    """
    file, base = Path(path), Path()
    if file.suffix.lower() in {".yaml", ".yml"}:
        spec, base = load_spec(file, RenderSpec, overrides), file.parent
    elif file.suffix.lower() in SUFFIXES:
        spec = parse({"prompts": path}, RenderSpec, where=path, overrides=overrides)
    else:
        raise SpecError(
            f"{path}: expected a spec (.yaml, .yml) or a prompt list ({', '.join(SUFFIXES)})"
        )
    changes: dict[str, Any] = {
        "prompts": _absolute(spec.prompts, base),
        "output": _absolute(output or spec.output, Path()),
    }
    if isinstance(spec.model, ModelSpec):
        changes["model"] = _located(spec.model, base)
    return spec.model_copy(update=changes)


def _located(model: ModelSpec, base: Path) -> ModelSpec:
    def adapter(spec: AdapterSpec) -> AdapterSpec:
        return spec.model_copy(update={"path": _absolute(spec.path, base)})

    return model.model_copy(
        update={
            "checkpoint": _absolute(model.checkpoint, base),
            "gemma": _absolute(model.gemma, base),
            "upsampler": model.upsampler and _absolute(model.upsampler, base),
            "distilled_lora": model.distilled_lora and adapter(model.distilled_lora),
            "loras": tuple(adapter(lora) for lora in model.loras),
        }
    )


def _absolute(path: str, base: Path) -> str:
    """The path from ``base``, ``~`` spelled out; a URI as it is."""
    return path if "://" in path else str((base / Path(path).expanduser()).absolute())
