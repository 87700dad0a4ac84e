"""What is decided about clips once they are scanned: what becomes a sample, and why not.

Nothing here reads a file, and the same list gives the same decisions: they are taken in its order.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal, get_args

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
_WHOLE: tuple[MediaColumn, ...] = ("video", "audio", "reference_video", "reference_audio")

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
    return column in _WHOLE


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
        faults += [said for uri in row.media.values() if isinstance(said := scans[uri], str)]
        if faults:
            finding = Finding(rule="unreadable", reason="; ".join(dict.fromkeys(faults)))
            yield Candidate(row=row, status="failed", findings=(finding,))
            return
        found: dict[MediaColumn, Scan] = {
            column: scan
            for column, uri in row.media.items()
            if isinstance(scan := scans[uri], Scan)
        }
        main = found["video"] if "video" in found else found["audio"]
        if "video" in found and main.kind == "audio":
            said = f"{row.media['video']} has no picture, only sound; expected a video or an image"
            finding = Finding(rule="unreadable", reason=said)
            yield Candidate(row=row, status="failed", findings=(finding,))
            return
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
            bucket = choose_bucket(
                self._spec.buckets,
                width=main.width,
                height=main.height,
                num_frames=scene.num_frames,
            )
            if bucket is None:
                least = min(one.num_frames for one in self._spec.buckets)
                said = f"{scene.num_frames} frames; the shortest bucket has {least}"
                findings.append(Finding(rule="bucket", reason=said))
            else:
                media["video"] = self._picture(row.media["video"], main, scene.start, bucket)
        findings += self._sounds(row, found, scene, media, notes)
        if "reference_video" in found and "video" in media:
            findings += self._reference(row, found["reference_video"], scene, media)
        _masks(row, found, media)
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
        if "audio" in self._spec.skip:
            return
        video = media.get("video")
        own = found.get("audio")
        if own is not None:
            if own.sound_s is None:
                said = f"{row.media['audio']} has no sound"
                yield Finding(rule="unreadable", reason=said)
                return
            duration = self._own_duration(own.sound_s, with_picture="video" in found)
            if duration is None:
                least = min(self._spec.audio_durations)
                said = f"sound of {own.sound_s:.2f} s; the shortest duration is {least:g} s"
                yield Finding(rule="audio_durations", reason=said)
                return
            media["audio"] = Sound(
                source=row.media["audio"], content=own.content, duration_s=duration
            )
        elif isinstance(video, Picture) and found["video"].kind == "video":
            if found["video"].sound_s is None:
                notes.append("it has no sound")
            else:
                media["audio"] = Sound(
                    source=video.source,
                    content=video.content,
                    start_s=scene.start / video.fps,
                    duration_s=video.bucket.num_frames / video.fps,
                )
        reference = found.get("reference_audio")
        if reference is not None and reference.sound_s:
            duration = self._own_duration(reference.sound_s, with_picture="video" in found)
            if duration is not None:
                media["reference_audio"] = Sound(
                    source=row.media["reference_audio"],
                    content=reference.content,
                    duration_s=duration,
                )

    def _own_duration(self, sound_s: float, *, with_picture: bool) -> float | None:
        """How much of a sound in a file of its own is encoded; ``None``: it is too short."""
        if with_picture:
            longest = max(bucket.num_frames for bucket in self._spec.buckets)
            return min(sound_s, longest / _SOUND_FPS)
        if not self._spec.audio_durations:
            return sound_s
        fitting = [one for one in self._spec.audio_durations if one <= sound_s]
        return max(fitting, default=None)

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
            bucket = choose_bucket(
                self._reference_buckets, width=scan.width, height=scan.height, num_frames=there
            )
        if bucket is None:
            said = f"its reference has {scan.num_frames} frames, too few from {scene.start} on"
            yield Finding(rule="reference", reason=said)
            return
        source = row.media["reference_video"]
        media["reference_video"] = self._picture(source, scan, scene.start, bucket, stride=stride)


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


def columns_of(row: ClipRow) -> list[MediaColumn]:
    """Columns of a row that have a file, in the order of ``MediaColumn``."""
    return [column for column in get_args(MediaColumn) if column in row.media]
