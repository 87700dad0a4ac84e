"""Validation of the LTX-2 trainer as rows of ours."""

from pathlib import Path, PurePath
from typing import Any

from rayreel.config.official_schema import (
    Dims,
    OfficialSample,
    OfficialShown,
    OfficialSpec,
    OfficialValidation,
)

# Pipelines of two stages, and what their sizes must divide into.
_TWO_STAGE, _MULTIPLE = ("ic_lora", "audio_to_video"), 64
_OLD_NEGATIVE_PROMPT = "worst quality, inconsistent motion, blurry, jittery, distorted"
_VIDEO_SUFFIXES = {".mp4", ".mov", ".mkv", ".avi", ".webm", ".m4v", ".gif"}
_LONGEST_OVERLAP = 16


def absolute(path: str) -> str:
    """A path as the trainer reads it: from where it is started."""
    return path if "://" in path else str(Path(path).expanduser().absolute())


def validation(spec: OfficialSpec, notes: list[str]) -> dict[str, Any]:
    """What ``ValidationSpec`` takes.

    Args:
        spec: The trainer's file.
        notes: Of what is not carried over; more are added.
    """
    block = spec.validation
    samples = _samples(block, notes)
    if not samples:
        return {}
    if block.interval is None:
        notes.append(
            f"validation.interval: null makes no clips; {len(samples)} prompts are left out"
        )
        return {}
    if block.is_old:
        notes.append("validation: what is not said is as up to release 2.3, whose names it has")
    if block.videos_per_prompt > 1:
        notes.append(
            f"validation.videos_per_prompt: {block.videos_per_prompt}; one clip of each prompt is "
            "made. Rows with other seeds make more"
        )
    rows = [_row(sample, index, block, notes) for index, sample in enumerate(samples)]
    _tell_of_two_stages(rows, notes)
    found: dict[str, Any] = {"rows": rows, "defaults": _defaults(block)}
    if block.interval != 250:
        found["interval"] = block.interval
    if block.skip_initial_validation:
        found["initial"] = False
    return found


def _samples(block: OfficialValidation, notes: list[str]) -> list[OfficialSample]:
    """Both ways to write them as the newer one."""
    old = ("reference_downscale_factor", "include_reference_in_output", "images")
    if block.samples:
        if unread := {*old, "prompts", "reference_videos"} & block.model_fields_set:
            notes.append(f"validation.{', '.join(sorted(unread))}: not read beside samples")
        return [*block.samples]
    found = []
    for index, prompt in enumerate(block.prompts):
        conditions = []
        if block.images:
            conditions.append(OfficialShown(type="first_frame", image_or_video=block.images[index]))
        if block.reference_videos:
            conditions.append(
                OfficialShown(
                    type="reference",
                    video=block.reference_videos[index],
                    downscale_factor=block.reference_downscale_factor,
                    include_in_output=block.include_reference_in_output,
                )
            )
        found.append(OfficialSample(prompt=prompt, conditions=tuple(conditions)))
    return found


def _defaults(block: OfficialValidation) -> dict[str, Any]:
    """Of all rows: the release's, where the file says nothing."""
    width, height, frames = _dims(block)
    old = block.is_old

    def said(field: str, then: Any, now: Any) -> Any:  # noqa: ANN401 - of any field
        value = getattr(block, field)
        return value if value is not None else then if old else now

    found: dict[str, Any] = {
        "width": width,
        "height": height,
        "num_frames": frames,
        "fps": said("frame_rate", 25.0, 24.0),
        "seed": block.seed,
        "steps": said("inference_steps", 50, 30),
        "pipeline": "one_stage" if block.generate_video else "text_to_audio",
    }
    negative = said("negative_prompt", _OLD_NEGATIVE_PROMPT, None)
    if negative is not None:
        found["negative_prompt"] = negative
    for stream in ("video", "audio"):
        if not getattr(block, f"generate_{stream}"):
            found[stream] = False
            continue
        both = said("guidance_scale", 4.0, 3.0 if stream == "video" else 7.0)
        pushed = said("stg_scale", 1.0, 1.0)
        if stream == "audio" and block.stg_mode == "stg_v":
            pushed = 0.0
        found[f"{stream}_guidance"] = {
            "cfg_scale": said(f"{stream}_cfg_scale", both, both),
            "stg_scale": said(f"{stream}_stg_scale", pushed, pushed),
            "stg_blocks": _perturbed(block),
            "rescale_scale": said("guidance_rescale", 0.0, 0.7),
            "modality_scale": said(f"{stream}_modality_guidance_scale", 1.0, 3.0),
        }
    return found


def _perturbed(block: OfficialValidation) -> list[int] | None:
    if "stg_blocks" in block.model_fields_set:
        return None if block.stg_blocks is None else [*block.stg_blocks]
    return [29] if block.is_old else [28]


def _dims(block: OfficialValidation) -> Dims:
    return block.video_dims or ((960, 544, 97) if block.is_old else (960, 544, 89))


def _row(
    sample: OfficialSample, index: int, block: OfficialValidation, notes: list[str]
) -> dict[str, Any]:
    row: dict[str, Any] = {"prompt": sample.prompt}
    if sample.seed is not None:
        row["seed"] = sample.seed
    if sample.video_dims:
        row |= dict(zip(("width", "height", "num_frames"), sample.video_dims, strict=True))
    listed = "samples" if block.samples else "prompts"
    rate = block.frame_rate or (25.0 if block.is_old else 24.0)
    dims, scale = sample.video_dims or _dims(block), 1
    for number, shown in enumerate(sample.conditions):
        where = f"validation.{listed}.{index}.conditions.{number}: {shown.type}"
        values, why = _condition(shown, dims, rate)
        if why:
            notes.append(f"{where}: {why}")
        elif clash := {"images", "references"} & row.keys() & values.keys():
            values = {field: [*row[field], *values[field]] for field in clash}
        scale *= shown.downscale_factor or 1
        row |= values
    if row.get("pipeline") in _TWO_STAGE:
        row |= _divisible(row["pipeline"], dims, _MULTIPLE * scale, index, notes)
    theirs = set()
    if "extend" in row:
        theirs = {"width", "height"}
    elif "retake" in row:
        theirs = {"width", "height", "num_frames"}
    return {field: value for field, value in row.items() if field not in theirs}


def _condition(shown: OfficialShown, dims: Dims, rate: float) -> tuple[dict[str, Any], str]:
    """Fields of a row, and what a person should know of them."""
    values: dict[str, Any] = {}
    said = "without a counterpart, so the clip is made without it"
    match shown.type:
        case "first_frame":
            path = absolute(str(shown.image_or_video))
            if PurePath(path).suffix.lower() in _VIDEO_SUFFIXES:
                said = f"{path} is a video; add a picture of its first frame to the row's images"
            else:
                values, said = {"images": [{"path": path}]}, ""
        case "reference" if shown.video:
            values = {"references": [{"path": absolute(shown.video)}], "pipeline": "ic_lora"}
            said = "the clip is written without it" if shown.include_in_output else ""
        case "audio_to_video":
            soundtrack = {"path": absolute(str(shown.audio))}
            values, said = {"soundtrack": soundtrack, "pipeline": "audio_to_video"}, ""
        case "video_to_audio":
            whole = {"path": absolute(str(shown.video)), "start_s": 0.0, "end_s": dims[2] / rate}
            values = {"retake": {**whole, "video": False, "guided": True}, "pipeline": "retake"}
            said = "a retake of its sound: size, rate and length are the video's, of 8k + 1 frames"
        case "prefix" | "suffix" if shown.video:
            values, said = _extension(shown, dims[2], rate)
    # Files say what such a clip is made of, whatever is generated.
    return values | ({"video": True, "audio": True} if shown.frozen else {}), said


def _extension(shown: OfficialShown, frames: int, rate: float) -> tuple[dict[str, Any], str]:
    """A clip that goes on from another one, or leads up to it."""
    backward = shown.type == "suffix"
    given = shown.num_frames
    if given is None and shown.duration is not None:
        given = max(1, round(shown.duration * rate / 8)) * 8 + (not backward)
    end = "start" if backward else "end"
    said = f"an extension: the clip goes on from the video's {end}, at its size and rate"
    extend = {"path": absolute(str(shown.video))}
    if backward:
        extend["direction"] = "backward"
    row: dict[str, Any] = {"extend": extend}
    if given is not None:
        overlap = given // 8 + (not backward)
        row["chain"] = {"overlap": min(overlap, _LONGEST_OVERLAP)}
        row["num_frames"] = max(8, frames - given)
        if overlap > _LONGEST_OVERLAP:
            said += f"; of its {overlap} latent frames, {_LONGEST_OVERLAP} are handed on"
    return row, said


def _divisible(
    pipeline: str, dims: Dims, multiple: int, index: int, notes: list[str]
) -> dict[str, int]:
    """The nearest size that two stages can have, where the trainer's is none."""
    near = [max(1, round(size / multiple)) * multiple for size in dims[:2]]
    if near == [*dims[:2]]:
        return {}
    notes.append(
        f"validation.video_dims: {dims[0]}x{dims[1]} of row {index} is {near[0]}x{near[1]}, as "
        f"pipeline {pipeline} takes multiples of {multiple}"
    )
    return {"width": near[0], "height": near[1]}


def _tell_of_two_stages(rows: list[dict[str, Any]], notes: list[str]) -> None:
    for pipeline in _TWO_STAGE:
        if numbers := [str(n) for n, row in enumerate(rows) if row.get("pipeline") == pipeline]:
            notes.append(
                f"validation: rows {', '.join(numbers)} go to pipeline {pipeline}, whose second "
                "stage needs model.upsampler, and model.distilled_lora where the checkpoint is no "
                "distilled one"
            )
