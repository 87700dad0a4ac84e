"""What a training run has learned goes where others find it: a folder, a store, the hub, a name."""

import json
import logging
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory

from huggingface_hub import HfApi

from rayreel.checkpoints.library import add_adapter, checked_name
from rayreel.checkpoints.lora import Adapter
from rayreel.checkpoints.reader import WeightFile
from rayreel.checkpoints.tiny import locate_model
from rayreel.config.jobs import ModelSpec
from rayreel.config.train import TrainSpec
from rayreel.data.dataset import DatasetInfo, read_info
from rayreel.data.sources import local_copy
from rayreel.data.storage import Storage
from rayreel.errors import RayreelError, SpecError
from rayreel.runs.model_card import CARD, Training, model_card, sample_name
from rayreel.training.validation import FOLDER as VALIDATION
from rayreel.training.validation import ValidationResult, read_results

HUB = "hf://"

_WEIGHTS = "weights"
_LONGEST = 400
_STEP = re.compile(r"step-(\d+)\.(?:safetensors|json)")
_REPOSITORY = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,94}/\w([A-Za-z0-9._-]{0,94}\w)?", re.ASCII)
_NO_NAME = re.compile(r"[^A-Za-z0-9._-]+")

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Published:
    """What was published.

    Attributes:
        where: Address of the repository, or the folder or URI.
        step: Optimiser steps that the weights have learned from.
        files: Names there, in order.
        registered: File in the adapter library, if it was given a name.
    """

    where: str
    step: int
    files: tuple[str, ...]
    registered: Path | None

    def __str__(self) -> str:
        """Lines for people."""
        lines = [f"{self.where}: weights of step {self.step}, {', '.join(self.files)}"]
        if self.registered:
            lines.append(f"adapter {self.registered.stem}: {self.registered}")
        return "\n".join(lines)


def publish(run: str, to: str, *, name: str | None = None, private: bool = False) -> Published:
    """Publish the newest weights of a run with a card and validation clips.

    Args:
        run: Run directory: a folder or a URI.
        to: Folder or URI, or ``hf://user/name`` for a repository on the hub, which is made.
        name: That the adapter gets in the adapter library, and its file; by default the file is
            called as the last part of ``to``, and no library has it.
        private: Whether a repository that is made is visible to its owners alone.

    Raises:
        SpecError: If there is nothing to publish, or it cannot go where it shall.
        StorageError: If a store does not answer.
        RayreelError: If the hub does not take it; says what to do next.
    """
    repository = _repository(to) if to.startswith(HUB) else None
    if private and repository is None:
        raise SpecError(f"--private is for {HUB}user/name; {to} is as visible as its folder is")
    storage = Storage(run)
    spec, model, facts = _read_run(storage)
    if name and spec.mode == "full":
        raise SpecError("--name is for adapters, and this run has trained all weights: leave it")
    step, weights = _newest(storage)
    title = checked_name(name) if name else _NO_NAME.sub("-", PurePosixPath(to).name) or "weights"
    published_step, results = _results(storage, step)
    file = f"{title}.safetensors"
    with _staged(storage, weights, file, results) as folder:
        training = Training(
            spec=spec,
            model=model,
            facts=facts,
            step=step,
            dataset=_dataset(spec),
            reference_scales=_scales(spec, folder / file),
            results=results,
            results_step=published_step,
        )
        card = model_card(training, name=title, weights=file, repository=repository)
        (folder / CARD).write_text(card, "utf-8")
        registered = add_adapter(name, folder / file) if name else None
        names = (file, *map(sample_name, results), CARD)
        if repository:
            where = _push(folder, repository, step, private=private, run=run, weights=weights)
        else:
            where = _copy(folder, names, to)
    return Published(where=where, step=step, files=names, registered=registered)


def _repository(to: str) -> str:
    """Owner and name of a repository."""
    repository = to.removeprefix(HUB).rstrip("/")
    if not _REPOSITORY.fullmatch(repository):
        raise SpecError(
            f"{to}: expected {HUB}user/name, of letters, digits, '-', '_' and '.', neither first "
            "nor last"
        )
    return repository


def _read_run(storage: Storage) -> tuple[TrainSpec, ModelSpec, dict[str, object]]:
    """What a training run was asked to do, and with what."""
    where = storage.join("run.json")
    try:
        facts = json.loads(storage.read_bytes("run.json"))
        spec = TrainSpec.model_validate(facts.pop("spec"))
    except FileNotFoundError as error:
        raise SpecError(f"{storage.uri} is no run directory: it has no run.json") from error
    except (ValueError, KeyError) as error:
        raise SpecError(
            f"{where} is not of a training run that this version of rayreel has made: "
            f"{_first_line(error)}"
        ) from error
    model = facts.get("model")
    return spec, ModelSpec.model_validate(model) if model else locate_model(spec.model), facts


def _newest(storage: Storage) -> tuple[int, str]:
    """The last weights that a run has saved."""
    found = _steps(storage, _WEIGHTS)
    if not found:
        raise SpecError(
            f"{storage.uri} has no weights yet: they are written every checkpoints.interval steps "
            "and at the end of the run"
        )
    return max(found.items())


def _steps(storage: Storage, folder: str) -> dict[int, str]:
    names = {name: _STEP.fullmatch(PurePosixPath(name).name) for name in storage.names(folder)}
    return {int(match[1]): name for name, match in names.items() if match}


def _results(storage: Storage, step: int) -> tuple[int | None, list[ValidationResult]]:
    """Clips of the last validation that weights of a step may have had."""
    for validated in sorted(_steps(storage, VALIDATION), reverse=True):
        if validated <= step:
            results = [one for one in read_results(storage, validated) if one.file]
            if results:
                return validated, results
    return None, []


def _dataset(spec: TrainSpec) -> DatasetInfo | None:
    try:
        return read_info(Storage(spec.dataset))
    # Whatever its file system says: the run may be older than its dataset's place.
    except Exception as error:  # noqa: BLE001
        log.warning("the card does not tell of the dataset, which cannot be read: %s", error)
        return None


def _scales(spec: TrainSpec, weights: Path) -> tuple[int, int] | None:
    return Adapter(WeightFile(weights), 1.0).reference_scales if spec.mode == "lora" else None


@contextmanager
def _staged(
    storage: Storage, weights: str, file: str, results: list[ValidationResult]
) -> Iterator[Path]:
    """A folder as it will be published; weights on this machine's disk are not copied."""
    with (
        TemporaryDirectory(prefix="rayreel-publish-") as temporary,
        local_copy(storage.join(weights)) as local,
    ):
        folder = Path(temporary)
        (folder / "samples").mkdir()
        (folder / file).symlink_to(local.absolute())
        for result in results:
            (folder / sample_name(result)).write_bytes(storage.read_bytes(str(result.file)))
        yield folder


def _copy(folder: Path, names: tuple[str, ...], to: str) -> str:
    try:
        target = Storage(to)
        for name in names:
            with target.local_staging(name) as staged:
                shutil.copyfile(folder / name, staged)
    except RayreelError:
        raise
    # Each file system has errors of its own.
    except Exception as error:
        raise SpecError(
            f"cannot write to {to} ({type(error).__name__}: {error}); expected a folder or an "
            f"fsspec URI that can be written, or {HUB}user/name"
        ) from error
    return to


def _push(
    folder: Path, repository: str, step: int, *, private: bool, run: str, weights: str
) -> str:
    """Make the repository and commit the folder to it; the token is the hub client's business."""
    hub = HfApi()
    try:
        hub.create_repo(repository, private=private or None, exist_ok=True)
        if private:
            _check_private(hub, repository)
        commit = hub.upload_folder(
            repo_id=repository, folder_path=folder, commit_message=f"Weights of step {step}"
        )
    except RayreelError:
        raise
    # Its client, its protocol for large files and the network have errors of their own.
    except Exception as error:
        raise RayreelError(
            f"{HUB}{repository} did not take it: {_first_line(error)}. Nothing is lost: {weights} "
            f"and the clips are in {run} as before, and the same command tries again"
            f"{_remedy(error)}"
        ) from error
    return str(commit.repo_url)


def _check_private(hub: HfApi, repository: str) -> None:
    if hub.repo_info(repository).private is False:
        raise SpecError(
            f"{HUB}{repository} is there already and everybody sees it, so --private cannot hold: "
            "make it private on the hub, take another name, or leave --private"
        )


def _remedy(error: BaseException | None) -> str:
    """What a person has to do before, as far as an error or one behind it says."""
    while error is not None:
        response = getattr(error, "response", None)
        if response is not None and response.status_code in {401, 403}:
            return ", once `hf auth login` or HF_TOKEN gives it a token that may write there"
        error = error.__cause__
    return ""


def _first_line(error: BaseException) -> str:
    """What an error says, on one line, with what caused it."""
    text = " ".join(str(error).split()).rstrip(".") or type(error).__name__
    if error.__cause__ is not None:
        text = f"{text}: {_first_line(error.__cause__)}"
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."
