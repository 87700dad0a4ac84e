"""A job as it was written becomes a spec with absolute paths."""

import logging
from collections.abc import Iterable
from pathlib import Path
from typing import Any, get_args

from rayreel.checkpoints.library import named_adapter
from rayreel.checkpoints.recognise import model_in
from rayreel.config.conditions import AdapterSpec
from rayreel.config.encode import EncodeSpec, LocalCaptioner
from rayreel.config.evaluate import EvalSpec, RenderedSuite, Suite
from rayreel.config.jobs import ModelFile, ModelSetup, ModelSpec, RenderSpec
from rayreel.config.load import parse, read_mapping
from rayreel.config.official import convert, is_official
from rayreel.config.pretrain import PretrainSpec
from rayreel.config.request import RenderRequest, RequestFields
from rayreel.config.serving import ServeSpec
from rayreel.config.train import TrainSpec
from rayreel.data.manifest import SUFFIXES
from rayreel.errors import RayreelError, SpecError
from rayreel.requests.row_files import RowFiles

log = logging.getLogger(__name__)

_YAML = {".yaml", ".yml"}
_JOB_FIELDS = (
    RenderSpec.model_fields.keys() | ServeSpec.model_fields.keys()
) - ModelSetup.model_fields.keys()
_ENCODE_MODEL = {"model", "memory", "workers"}
_NO_PATHS = {"loras", "distilled_lora", "quantization", "image_model"}
_PATHS = ("checkpoint", *(field for field in get_args(ModelFile) if field not in _NO_PATHS))


def read_render_spec(
    path: str,
    overrides: Iterable[str] = (),
    output: str | None = None,
    model: str | None = None,
) -> RenderSpec:
    """Read a render spec, or make one for a bare prompt list.

    Args:
        path: YAML spec, or a prompt list to render with everything at its default.
        overrides: ``key=value`` texts that win over the file.
        output: Run directory that wins over both.
        model: Model that wins over the spec's: ``tiny``, a folder of weight files, or a model spec.

    Returns:
        The spec. Relative prompts and weights are taken from the spec's folder, or from the current
        one where there is no spec; a relative output always from the current one.

    Raises:
        SpecError: If the file is missing or wrong.
        CheckpointError: If a folder of weight files is not one model.
    """
    values, base = _read_job(path, "prompts", "a prompt list")
    values = _with_model(values, base, model)
    spec = parse(values, RenderSpec, where=path, overrides=overrides)
    changes: dict[str, Any] = {
        "prompts": _absolute(spec.prompts, base),
        "output": _absolute(output or spec.output, Path()),
        "store": spec.store and _absolute(spec.store, Path()),
        "traces": spec.traces and _absolute(spec.traces, Path()),
        "model": _located(spec.model, base),
    }
    return spec.model_copy(update=changes)


def read_encode_spec(
    path: str,
    overrides: Iterable[str] = (),
    output: str | None = None,
    model: str | None = None,
) -> EncodeSpec:
    """Read an encode spec, or make one for a bare list.

    Args:
        path: YAML spec, or a list of clips.
        overrides: ``key=value`` texts that win over the file.
        output: Of the dataset; wins over both.
        model: Model that wins over the spec's; of a model spec, defaults and placement of render
            jobs do not count.

    Returns:
        The spec, with paths as of ``read_render_spec``; a captioner's folder starts at the spec's.

    Raises:
        SpecError: If the file is missing or wrong.
        CheckpointError: If a folder of weight files is not one model.
    """
    values, base = _read_job(path, "dataset", "a list of clips")
    found = _with_model(values, base, model)
    if isinstance(values.get("model", model), str):
        # What a model spec says of rendering is no part of this job.
        found = {
            key: value for key, value in found.items() if key in _ENCODE_MODEL or key in values
        }
    spec = parse(found, EncodeSpec, where=path, overrides=overrides)
    captions = spec.captions
    if isinstance(captions.captioner, LocalCaptioner):
        folder = _absolute(captions.captioner.folder, base)
        local = captions.captioner.model_copy(update={"folder": folder})
        captions = captions.model_copy(update={"captioner": local})
    changes: dict[str, Any] = {
        "dataset": _absolute(spec.dataset, base),
        "output": _absolute(output or spec.output, Path()),
        "store": spec.store and _absolute(spec.store, Path()),
        "traces": spec.traces and _absolute(spec.traces, Path()),
        "model": _located(spec.model, base),
        "captions": captions,
    }
    return spec.model_copy(update=changes)


def read_train_spec(
    path: str,
    overrides: Iterable[str] = (),
    output: str | None = None,
    model: str | None = None,
) -> TrainSpec:
    """Read a train spec, or make one for a dataset alone.

    Args:
        path: YAML spec, one of the LTX-2 trainer, or the folder or URI of a dataset.
        overrides: ``key=value`` texts that win over the file.
        output: Run directory that wins over the spec's.
        model: Model that wins over the spec's; of a model spec, what it says of rendering does not
            count.

    Returns:
        The spec, with paths as of ``read_render_spec``; the dataset, as every output, starts at the
        current folder.

    Raises:
        SpecError: If the file is missing or wrong.
        CheckpointError: If a folder of weight files is not one model.
    """
    values, base = _read_training(path)
    found = _with_model(values, base, model)
    found = {key: value for key, value in found.items() if key == "model" or key in values}
    spec = parse(found, TrainSpec, where=path, overrides=overrides)
    changes: dict[str, Any] = {
        "dataset": _absolute(spec.dataset, Path()),
        "output": _absolute(output or spec.output, Path()),
        "start": spec.start and _absolute(spec.start, base),
        "validation": spec.validation.model_copy(
            update={"folder": _absolute(spec.validation.folder or "", base)}
        ),
        "model": _located(spec.model, base),
    }
    return spec.model_copy(update=changes)


def read_pretrain_spec(
    path: str, overrides: Iterable[str] = (), output: str | None = None
) -> PretrainSpec:
    """Read the spec of a network that learns from scratch.

    Args:
        path: YAML spec.
        overrides: ``key=value`` texts that win over the file.
        output: Run directory that wins over the spec's.

    Returns:
        The spec. The architecture is taken from the spec's folder; outputs, and inputs as they are
        outputs of others, from the current one.

    Raises:
        SpecError: If the file is missing or wrong.
    """
    file = Path(path)
    if file.suffix.lower() not in _YAML:
        raise SpecError(f"{path}: expected a spec (.yaml, .yml)")
    spec = parse(read_mapping(file), PretrainSpec, where=path, overrides=overrides)
    changes: dict[str, Any] = {
        "architecture": _absolute(spec.architecture, file.parent),
        "inputs": {part: _absolute(one, Path()) for part, one in spec.inputs.items()},
        "output": _absolute(output or spec.output, Path()),
    }
    return spec.model_copy(update=changes)


def read_eval_spec(
    path: str,
    overrides: Iterable[str] = (),
    output: str | None = None,
    model: str | None = None,
) -> EvalSpec:
    """Read an eval spec, or make one that asks a model what models usually are asked.

    Args:
        path: YAML spec with ``suites``, or a model: ``tiny``, a folder of weight files, or a model
            spec.
        overrides: ``key=value`` texts that win over the file.
        output: Run directory that wins over the spec's.
        model: Model that wins over the spec's.

    Returns:
        The spec, with paths as of ``read_render_spec``; files that suites name start at the spec's
        folder.

    Raises:
        SpecError: If the file is missing or wrong.
        CheckpointError: If a folder of weight files is not one model.
    """
    file, values, base = Path(path), {}, Path()
    if file.suffix.lower() in _YAML and "suites" in (found := read_mapping(file)):
        values, base = found, file.parent
    elif model is None:
        model = path
    else:
        raise SpecError(f"{path} has no suites; expected an eval spec beside a model")
    values = _with_model(values, base, model)
    spec = parse(values, EvalSpec, where=path, overrides=overrides)
    changes: dict[str, Any] = {
        "suites": tuple(_located_suite(suite, base) for suite in spec.suites),
        "output": _absolute(output or spec.output, Path()),
        "model": _located(spec.model, base),
    }
    return spec.model_copy(update=changes)


def _located_suite(suite: Suite, base: Path) -> Suite:
    if not isinstance(suite, RenderedSuite):
        return suite
    said = suite.request.model_dump(exclude_unset=True)
    request = RenderRequest.model_validate({**said, "prompt": suite.name})
    try:
        located = RowFiles(str(base.absolute()), output="").located(request)
    except RayreelError as error:
        raise SpecError(f"suite {suite.name}: {error}") from error
    values = located.model_dump(include={*said}, exclude_unset=True)
    return suite.model_copy(update={"request": RequestFields.model_validate(values)})


def read_serve_spec(
    path: str | None = None,
    overrides: Iterable[str] = (),
    output: str | None = None,
    model: str | None = None,
) -> ServeSpec:
    """Read the spec of a service, or make one with everything at its default.

    Args:
        path: YAML spec, if there is one.
        overrides: ``key=value`` texts that win over the file.
        output: Service directory that wins over both.
        model: Model that wins over the spec's.

    Returns:
        The spec, with paths as of ``read_render_spec``.

    Raises:
        SpecError: If the file is missing or wrong.
        CheckpointError: If a folder of weight files is not one model.
    """
    file = Path(path) if path else None
    if file and file.suffix.lower() not in _YAML:
        raise SpecError(f"{path}: expected a spec (.yaml, .yml)")
    values, base = (read_mapping(file), file.parent) if file else ({}, Path())
    values = _with_model(values, base, model)
    if output:
        values = {**values, "output": output}
    spec = parse(values, ServeSpec, where=path or "options", overrides=overrides)
    return located_service(spec, base)


def located_service(spec: ServeSpec, base: Path) -> ServeSpec:
    """A service whose paths are absolute.

    Args:
        spec: As it was written.
        base: Where its weights are; its outputs start at the current folder.
    """
    scheme, separator, file = (spec.database or "").partition(":///")
    changes: dict[str, Any] = {
        "output": _absolute(spec.output, Path()),
        "store": spec.store and _absolute(spec.store, Path()),
        "traces": spec.traces and _absolute(spec.traces, Path()),
        "model": _located(spec.model, base),
    }
    if separator and scheme.startswith("sqlite") and file:
        changes["database"] = f"{scheme}:///{_absolute(file, Path())}"
    return spec.model_copy(update=changes)


def _read_training(path: str) -> tuple[dict[str, Any], Path]:
    """What a train spec says, and where relative paths start."""
    file = Path(path)
    if file.suffix.lower() not in _YAML:
        return {"dataset": path}, Path()
    values = read_mapping(file)
    if not is_official(values):
        return values, file.parent
    converted = convert(values, where=path)
    for note in converted.notes:
        log.warning("%s: %s", path, note)
    return dict(converted.values), file.parent


def read_model(name: str, overrides: Iterable[str] = ()) -> ModelSetup:
    """Read a model and how it is run.

    Args:
        name: ``tiny``, a folder of weight files, a model spec or a render spec.
        overrides: ``key=value`` texts that win over the file.

    Raises:
        SpecError: If the spec is missing or wrong.
        CheckpointError: If a folder of weight files is not one model.
    """
    values = _with_model({}, Path(), name)
    return _setup(values, name, overrides)


def read_setup(model: ModelSpec, overrides: Iterable[str] = ()) -> ModelSetup:
    """Defaults around a model; arguments and errors as of ``read_model``."""
    return _setup({"model": model.model_dump(exclude_unset=True)}, "model", overrides)


def _read_job(path: str, field: str, what: str) -> tuple[dict[str, Any], Path]:
    """What a spec says, or a bare list as a field of one; and where relative paths start."""
    file = Path(path)
    if file.suffix.lower() in _YAML:
        return read_mapping(file), file.parent
    if file.suffix.lower() in SUFFIXES:
        return {field: path}, Path()
    raise SpecError(f"{path}: expected a spec (.yaml, .yml) or {what} ({', '.join(SUFFIXES)})")


def _setup(values: dict[str, Any], where: str, overrides: Iterable[str]) -> ModelSetup:
    setup = parse(values, ModelSetup, where=where, overrides=overrides)
    return setup.model_copy(update={"model": _located(setup.model, Path())})


def _with_model(values: dict[str, Any], base: Path, name: str | None) -> dict[str, Any]:
    """The values of a job over those of the model spec that it, or the caller, names."""
    if name is not None:
        values, base = {key: value for key, value in values.items() if key != "model"}, Path()
    chosen = values.get("model") if name is None else name
    if not isinstance(chosen, str) or chosen == "tiny":
        return values if chosen is None else {**values, "model": chosen}
    path = base / Path(chosen).expanduser()
    if path.is_dir():
        return {**values, "model": model_in(path).model_dump(exclude_unset=True)}
    if path.suffix.lower() not in _YAML:
        raise SpecError(
            f"model {chosen}: expected 'tiny', a folder of weight files or a model spec (.yaml)"
        )
    # What a render spec says of its own job is no part of its model.
    setup = {key: value for key, value in read_mapping(path).items() if key not in _JOB_FIELDS}
    setup = _with_model(setup, path.parent, None)
    if isinstance(model := setup.get("model"), dict):
        folder = path.parent / Path(str(model.get("folder") or "")).expanduser()
        setup["model"] = {**model, "folder": str(folder.absolute())}
    return _merged(setup, {key: value for key, value in values.items() if key != "model"})


def _merged(under: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    """Both mappings, nested ones merged as well; ``over`` wins."""
    both = {
        key: _merged(under[key], value)
        for key, value in over.items()
        if isinstance(value, dict) and isinstance(under.get(key), dict)
    }
    return {**under, **over, **both}


def _located(model: Any, base: Path) -> Any:  # noqa: ANN401 - a literal or a spec
    if not isinstance(model, ModelSpec):
        return model
    base = base / Path(model.folder or "").expanduser()

    def adapter(spec: AdapterSpec) -> AdapterSpec:
        return spec.model_copy(update={"path": _absolute(named_adapter(spec.path), base)})

    image = model.image_model
    if image:
        image = image.model_copy(update={"folder": _absolute(image.folder, base)})
    paths = {field: _absolute(path, base) for field in _PATHS if (path := getattr(model, field))}
    return model.model_copy(
        update={
            **paths,
            "folder": None,
            "distilled_lora": model.distilled_lora and adapter(model.distilled_lora),
            "loras": tuple(adapter(lora) for lora in model.loras),
            "image_model": image,
        }
    )


def _absolute(path: str, base: Path) -> str:
    """The path from ``base``, ``~`` spelled out; a URI as it is."""
    return path if "://" in path else str((base / Path(path).expanduser()).absolute())
