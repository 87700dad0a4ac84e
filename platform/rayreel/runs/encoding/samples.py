"""What is decided about clips once they are scanned: what becomes a sample, and why not.

Nothing here reads a file, and the same list gives the same decisions: they are taken in its order.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from rayreel.config.buckets import Bucket
from rayreel.config.encode import EncodeSpec
from rayreel.data.buckets import choose_bucket, scaled_buckets
from rayreel.data.hashing import content_hash
from rayreel.data.samples import Mask, Medium, Picture, Scan, Scene, Sound
from rayreel.media.framing import center_crop, crop_surplus
from rayreel.runs.encoding.near import NearDuplicates
from rayreel.runs.encoding.rows import ClipRow, MediaColumn

# Sound in a column of its own may be as long as the longest bucket at this rate, whatever the
# rate of the clip: so do the published tools.
_SOUND_FPS = 25.0
# Half a window of the spectrogram, by which sound is reflected at its ends.
_TOO_SHORT_S = 0.032
_PICTURES: tuple[MediaColumn, ...] = ("video", "reference_video")
_SOUNDS: tuple[MediaColumn, ...] = ("audio", "reference_audio")
# What there has to be for a column beside the clip itself.
_TARGETS: dict[MediaColumn, str] = {
    "reference_video": "picture",
    "video_mask": "picture",
    "audio_mask": "sound",
}

Status = Literal["kept", "dropped", "failed"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """Why a clip is not kept.

    Attributes:
        rule: Name of a filter, ``bucket``, ``near_duplicate``, or the like.
        reason: For a person.
    """

    rule: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A clip, or a scene of one, and what is decided about it.

    Attributes:
        row: Of the list.
        index: Of the scene, from 0.
        scan: Of the picture; of sound alone, of the sound. ``None`` where a file cannot be read.
        scene: Of the scan.
        status: What is decided.
        findings: All that is against it; the first counts.
        media: What is to be encoded, by column.
        notes: What is otherwise than one may expect.
    """

    row: ClipRow
    index: int = 0
    scan: Scan | None = None
    scene: Scene | None = None
    status: Status = "kept"
    findings: tuple[Finding, ...] = ()
    media: Mapping[MediaColumn, Medium] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @property
    def bucket(self) -> Bucket | None:
        """Size of the picture."""
        video = self.media.get("video")
        return video.bucket if isinstance(video, Picture) else None


def is_whole(column: MediaColumn) -> bool:
    """Whether files of a column are looked at, or only hashed."""
    return column in (*_PICTURES, *_SOUNDS)


class Decisions:
    """Decides about the rows of a list, one after the other."""

    def __init__(self, spec: EncodeSpec) -> None:
        """Nothing is decided yet.

        Args:
            spec: Its buckets and filters are known to be right.
        """
        self._spec = spec
        self._near = (
            None if spec.duplicate_distance is None else NearDuplicates(spec.duplicate_distance)
        )
        reference = scaled_buckets(spec.buckets, spec.reference.downscale)
        self._reference_buckets = tuple(
            bucket.model_copy(
                update={"num_frames": (bucket.num_frames - 1) // spec.reference.stride + 1}
            )
            for bucket in reference
        )

    def of(self, row: ClipRow, scans: Mapping[str, Scan | str]) -> Iterator[Candidate]:
        """Candidates of a row.

        Args:
            row: Of the list.
            scans: What was found in each of its sources, or what is wrong with it.
        """
        faults = [row.fault] if row.fault else []
        found: dict[MediaColumn, Scan] = {}
        for column, uri in row.media.items():
            scan = scans[uri]
            fault = scan if isinstance(scan, str) else _unfit(column, uri, scan)
            if isinstance(scan, str) or fault:
                faults.append(fault)
            else:
                found[column] = scan
        if faults:
            finding = Finding(rule="unreadable", reason="; ".join(dict.fromkeys(faults)))
            yield Candidate(row=row, status="failed", findings=(finding,))
            return
        main = found["video"] if "video" in found else found["audio"]
        # Sound is not cut, even that of a video.
        scenes = main.scenes if "video" in found else main.scenes[:1]
        for index, scene in enumerate(scenes):
            yield self._candidate(row, index, found, scene)

    def _candidate(
        self, row: ClipRow, index: int, found: Mapping[MediaColumn, Scan], scene: Scene
    ) -> Candidate:
        main = found.get("video") or found["audio"]
        findings = list(_filtered(self._spec, scene))
        media: dict[MediaColumn, Medium] = {}
        notes = list(main.notes)
        if "video" in found:
            bucket = self._bucket(self._spec.buckets, main, scene.num_frames)
            if bucket is None:
                least = min(one.num_frames for one in self._spec.buckets)
                said = f"{scene.num_frames} frames; the shortest bucket has {least}"
                said = self._too_small(self._spec.buckets, main) or said
                findings.append(Finding(rule="bucket", reason=said))
            else:
                media["video"] = self._picture(row.media["video"], main, scene.start, bucket)
        findings += self._sounds(row, found, scene, media, notes)
        if "reference_video" in found and "video" in media:
            findings += self._reference(row, found["reference_video"], scene, media)
        _masks(row, found, media)
        for column in row.media:
            if column not in media and not findings:
                notes.append(f"its {column} is left out: the clip has no {_TARGETS[column]}")
        if self._near and scene.phash and not findings:
            near = self._near.nearest(scene.phash, (main.content, scene.start), row.name)
            if near:
                findings.append(Finding(rule="near_duplicate", reason=near))
        return Candidate(
            row=row,
            index=index,
            scan=main,
            scene=scene,
            status="dropped" if findings else "kept",
            findings=tuple(findings),
            media={} if findings else media,
            notes=tuple(notes),
        )

    def _bucket(self, buckets: Sequence[Bucket], scan: Scan, num_frames: int) -> Bucket | None:
        fitting = self._fitting(buckets, scan)
        return choose_bucket(fitting, width=scan.width, height=scan.height, num_frames=num_frames)

    def _fitting(self, buckets: Sequence[Bucket], scan: Scan) -> list[Bucket]:
        return [
            one
            for one in buckets
            if self._spec.enlarge or (one.width <= scan.width and one.height <= scan.height)
        ]

    def _too_small(self, buckets: Sequence[Bucket], scan: Scan) -> str:
        """What a picture lacks for every bucket in size; empty if there is one."""
        if self._fitting(buckets, scan):
            return ""
        return f"{scan.width}x{scan.height} pixels; every bucket is larger, and enlarge is false"

    def _picture(
        self, source: str, scan: Scan, start: int, bucket: Bucket, *, stride: int = 1
    ) -> Picture:
        sizes = (scan.width, scan.height, bucket.width, bucket.height)
        crop = center_crop(*sizes)
        if self._spec.crop == "random":
            down, right = crop_surplus(*sizes)
            # Of the clip alone: it is cut alike wherever it stands in a list.
            place = content_hash("crop", str(self._spec.seed), scan.content, str(start))
            crop = (int(place[:16], 16) % (down + 1), int(place[16:], 16) % (right + 1))
        return Picture(
            source=source,
            content=scan.content,
            start=start,
            fps=scan.fps / stride,
            bucket=bucket,
            crop=crop,
            stride=stride,
        )

    def _sounds(
        self,
        row: ClipRow,
        found: Mapping[MediaColumn, Scan],
        scene: Scene,
        media: dict[MediaColumn, Medium],
        notes: list[str],
    ) -> Iterator[Finding]:
        """Sound of its own column, else that of the video; of a reference too."""
        for column in _SOUNDS:
            if column in found:
                yield from self._own_sound(row, column, found, scene, media)
        video = media.get("video")
        if "audio" in self._spec.skip or "audio" in found:
            return
        if not isinstance(video, Picture) or found["video"].kind != "video":
            return
        duration_s = video.bucket.num_frames / video.fps
        if found["video"].sound_s is None:
            notes.append("it has no sound")
        elif duration_s <= _TOO_SHORT_S:
            notes.append(f"{duration_s:.3f} s are too short for its sound")
        else:
            media["audio"] = Sound(
                source=video.source,
                content=video.content,
                start_s=found["video"].late_s + scene.start / video.fps,
                duration_s=duration_s,
            )

    def _own_sound(
        self,
        row: ClipRow,
        column: MediaColumn,
        found: Mapping[MediaColumn, Scan],
        scene: Scene,
        media: dict[MediaColumn, Medium],
    ) -> Iterator[Finding]:
        """Sound in a file of its own, from where the scene starts."""
        scan = found[column]
        start_s = scene.start / found["video"].fps if "video" in found else 0.0
        left_s = (scan.sound_s or 0.0) - start_s
        durations = self._spec.audio_durations
        if "video" in found:
            longest = max(bucket.num_frames for bucket in self._spec.buckets)
            duration_s = min(left_s, longest / _SOUND_FPS)
        else:
            duration_s = max((d for d in durations if d <= left_s), default=0.0)
            duration_s = duration_s if durations else left_s
        if duration_s > 0:
            media[column] = Sound(
                source=row.media[column],
                content=scan.content,
                start_s=start_s,
                duration_s=duration_s,
            )
        elif "video" in found:
            said = f"{column} has {scan.sound_s:.2f} s; the scene starts at {start_s:.2f} s"
            yield Finding(rule=column, reason=said)
        else:
            said = (
                f"{column} has {scan.sound_s:.2f} s; the shortest duration is {min(durations):g} s"
            )
            yield Finding(rule="audio_durations", reason=said)

    def _reference(
        self,
        row: ClipRow,
        scan: Scan,
        scene: Scene,
        media: dict[MediaColumn, Medium],
    ) -> Iterator[Finding]:
        """The reference's own bucket and crop, from the same frame on as the target."""
        stride = self._spec.reference.stride
        there = (scan.num_frames - scene.start - 1) // stride + 1
        bucket = None
        if there > 0:
            bucket = self._bucket(self._reference_buckets, scan, there)
        if bucket is None:
            said = f"its reference has {scan.num_frames} frames, too few from {scene.start} on"
            if small := self._too_small(self._reference_buckets, scan):
                said = f"its reference has {small}"
            yield Finding(rule="reference", reason=said)
            return
        source = row.media["reference_video"]
        media["reference_video"] = self._picture(source, scan, scene.start, bucket, stride=stride)


def _unfit(column: MediaColumn, uri: str, scan: Scan) -> str:
    """What a file lacks for its column; empty if it is fit."""
    if column in _PICTURES and scan.kind == "audio":
        return f"{uri} has no picture, only sound; expected a video or an image"
    if column in _SOUNDS and not scan.sound_s:
        return f"{uri} has no sound"
    return ""


def _filtered(spec: EncodeSpec, scene: Scene) -> Iterator[Finding]:
    for name, limits in spec.filters.items():
        value = scene.measures[name]
        below = limits.min is not None and value < limits.min
        if below or (limits.max is not None and value > limits.max):
            yield Finding(rule=name, reason=f"{name} is {value:.3g}; expected {limits}")


def _masks(
    row: ClipRow, found: Mapping[MediaColumn, Scan], media: dict[MediaColumn, Medium]
) -> None:
    targets: tuple[tuple[MediaColumn, MediaColumn], ...] = (
        ("video_mask", "video"),
        ("audio_mask", "audio"),
    )
    for column, of in targets:
        target = media.get(of)
        if column in found and isinstance(target, Picture | Sound):
            media[column] = Mask(
                source=row.media[column],
                content=found[column].content,
                start=target.start if isinstance(target, Picture) else 0,
                of=target,
            )
