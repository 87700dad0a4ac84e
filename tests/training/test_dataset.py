"""Datasets as strategies see them: what is missing or does not fit is said before any work."""

import logging
import re
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from rayreel.checkpoints.files import ModelFiles
from rayreel.checkpoints.tiny import locate_model
from rayreel.config.strategies import (
    Mask,
    Prefix,
    Reference,
    SpatialCrop,
    Streams,
    StreamSpec,
    Suffix,
    TextToVideo,
)
from rayreel.data.columns import SampleRow
from rayreel.data.dataset import read_info, write_info
from rayreel.data.storage import Storage
from rayreel.errors import SpecError
from rayreel.training.dataset import TrainingData
from rayreel.training.shapes import Sizes
from tests.data.encoded import encoded, row
from tests.training.datasets import tiny_dataset

BOTH = TextToVideo().streams()
PICTURES = TextToVideo(audio=False).streams()


def of_video(*conditions) -> Streams:
    return Streams(video=StreamSpec(conditions=conditions), audio=None)


def of_audio(*conditions) -> Streams:
    return Streams(video=None, audio=StreamSpec(conditions=conditions))


@pytest.fixture(scope="module")
def files() -> ModelFiles:
    return ModelFiles(locate_model("tiny"))


def test_shapes_are_of_what_the_strategy_reads(tmp_path):
    shapes = ((2, 2, 3), (3, 2, 2))
    tiny_dataset(tmp_path, clips=4, shapes=shapes, references=True)
    data = TrainingData(str(tmp_path), of_video())
    assert [shape.key for shape in data.shapes[:2]] == [Sizes(video=size) for size in shapes]
    assert [shape.tokens for shape in data.shapes] == [12, 12, 12, 12]
    assert data.shapes[0] is data.shapes[2]


def test_tokens_of_all_that_is_read_are_counted(tmp_path):
    tiny_dataset(tmp_path, shapes=((3, 2, 4),), references=True, reference_scales=(2, 2))
    reference = StreamSpec(conditions=(Reference(),))
    data = TrainingData(str(tmp_path), Streams(video=reference, audio=reference))
    sample = data.sample(0)
    assert sample.audio_latents is not None
    assert sample.reference_audio_latents is not None
    steps = sample.audio_latents.shape[1] + sample.reference_audio_latents.shape[1]
    assert data.shapes[0].tokens == 3 * 2 * 4 + 2 * 1 * 2 + steps
    assert data.reference_scales == (2, 2)


def test_samples_are_read_by_many_threads(tmp_path):
    tiny_dataset(tmp_path, clips=12, per_shard=2)
    data = TrainingData(str(tmp_path), BOTH)
    alone = [data.sample(number) for number in range(12)]
    with ThreadPoolExecutor(4) as threads:
        found = list(threads.map(data.sample, [*range(12)] * 4))
    for number, sample in enumerate(found):
        torch.testing.assert_close(
            sample.video_latents, alone[number % 12].video_latents, rtol=0, atol=0
        )


@pytest.mark.parametrize(
    ("made", "streams", "said"),
    [
        ({"audio": False}, BOTH, "8 of 8 samples have no audio_latents, .*strategy.audio: false"),
        ({"shapes": ((2, 2, 2), None)}, PICTURES, "4 of 8 samples .* video_latents, .*'clip 1'"),
        ({"shapes": ((2, 2, 2), (1, 2, 2))}, BOTH, r"4 of 8 .* there are audio_latents \(4\), "),
        ({"text": False}, PICTURES, r"no text, .* without skip: \[text\]"),
        ({}, of_video(Mask()), "no video_mask, .*column video_mask"),
        ({}, of_audio(Mask()), "no audio_mask, .*column audio_mask"),
        ({}, of_video(Reference()), "no reference_latents, .*column reference_video"),
        ({}, of_audio(Reference()), "no reference_audio_latents, .*column reference_audio"),
        ({"clips": 0}, BOTH, "has no samples"),
    ],
)
def test_what_samples_lack_is_said(tmp_path, made, streams, said):
    tiny_dataset(tmp_path, **made)
    with pytest.raises(SpecError, match=said):
        TrainingData(str(tmp_path), streams)


@pytest.mark.parametrize(
    ("streams", "said"),
    [
        (of_video(Prefix(length=2)), "strategy.video show 2 latent frames.*have 2; show 1 at most"),
        (of_video(Prefix(length=1), Suffix(length=1)), "show 2 latent frames"),
        (of_audio(Suffix(length=10)), "strategy.audio show 10 steps of sound.*show 9 at most"),
    ],
)
def test_conditions_that_leave_nothing_to_learn_are_refused(tmp_path, streams, said):
    tiny_dataset(tmp_path, shapes=((4, 2, 2), (2, 2, 2)))
    with pytest.raises(SpecError, match=said):
        TrainingData(str(tmp_path), streams)


def test_conditions_shorter_than_clips_are_fine(tmp_path):
    tiny_dataset(tmp_path, shapes=((4, 2, 2), (3, 2, 2)), masks=True)
    TrainingData(str(tmp_path), of_video(Prefix(length=1), Suffix(length=1), Mask()))


@pytest.mark.parametrize(
    ("size", "reference", "scales"),
    [
        ((3, 4, 6), (3, 4, 6), (1, 1)),
        ((5, 4, 6), (3, 2, 3), (2, 2)),
        ((1, 4, 6), (1, 2, 3), (2, 1)),
        ((5, 4, 6), (1, 4, 6), (1, 1)),
    ],
)
def test_scales_of_references_are_found(tmp_path, size, reference, scales):
    _with_references(tmp_path, [(size, reference)])
    data = TrainingData(str(tmp_path), of_video(Reference()))
    assert data.reference_scales == scales


@pytest.mark.parametrize(
    ("pairs", "said"),
    [
        ([((2, 4, 6), (2, 2, 6))], "'clip 0' are 2x4x6 .* its reference 2x2x6; expected"),
        ([((2, 4, 6), (2, 3, 4))], "whole number"),
        ([((2, 2, 2), (2, 4, 4))], "whole number"),
        ([((4, 2, 2), (3, 2, 2))], "whole number"),
        ([((2, 2, 2), (3, 2, 2))], "whole number"),
        (
            [((2, 4, 4), (2, 4, 4)), ((2, 4, 4), (2, 2, 2))],
            r"pixels .* 1 \('clip 0'\), 2 \('clip 1'",
        ),
        ([((5, 2, 2), (5, 2, 2)), ((5, 2, 2), (3, 2, 2))], "number of frames"),
    ],
)
def test_references_of_no_single_scale_are_refused(tmp_path, pairs, said):
    _with_references(tmp_path, pairs)
    with pytest.raises(SpecError, match=said):
        TrainingData(str(tmp_path), of_video(Reference()))


def test_an_image_may_be_pinned_to_any_frame_of_its_sample(tmp_path, files):
    _with_references(tmp_path, [((3, 2, 2), (1, 2, 2))])
    for frame in (-17, -1, 16):
        TrainingData(str(tmp_path), of_video(Reference(frame=frame))).check(files)


@pytest.mark.parametrize(
    ("reference", "frame", "said"),
    [
        ((3, 2, 2), -1, "one image as large as its sample, 1x2x2 .* that of 'clip 0' has 3x2x2"),
        ((1, 1, 1), -1, "'clip 0' has 1x1x1"),
        ((1, 2, 2), 17, "frame 17 is none of sample 'clip 0', which has 17; expected -17 to 16"),
        ((1, 2, 2), -18, "frame -18 is none of"),
    ],
)
def test_what_cannot_be_pinned_is_refused(tmp_path, files, reference, frame, said):
    _with_references(tmp_path, [((3, 2, 2), reference)])
    with pytest.raises(SpecError, match=said):
        TrainingData(str(tmp_path), of_video(Reference(frame=frame))).check(files)


def test_references_of_another_rate_are_warned_of(tmp_path, caplog):
    _with_references(tmp_path, [((3, 2, 2), (3, 2, 2))] * 2, fps=[24.0, 12.0])
    TrainingData(str(tmp_path), of_video(Reference()))
    assert "1 references play at another rate" in caplog.text
    assert "'clip 1' with 12 frames per second instead of 24" in caplog.text


def test_the_model_that_encoded_a_dataset_is_accepted(tmp_path, files, caplog):
    tiny_dataset(tmp_path)
    TrainingData(str(tmp_path), BOTH).check(files)
    assert not caplog.records


@pytest.mark.parametrize(
    ("part", "said"),
    [
        ("video_encoder", "its pictures were encoded by another video VAE"),
        ("audio_encoder", "its sounds were encoded by another audio VAE"),
        ("language_model", "its texts were encoded by another language model"),
        ("length", "its texts were filled up to another length"),
    ],
)
def test_another_model_is_refused_by_the_part_that_differs(tmp_path, files, part, said):
    _with_fingerprints(tiny_dataset(tmp_path), **{part: "0123"})
    with pytest.raises(SpecError, match=f"not encoded for this model: {said} \\(0123; the model"):
        TrainingData(str(tmp_path), BOTH).check(files)


def test_parts_that_are_not_read_may_differ(tmp_path, files):
    _with_fingerprints(tiny_dataset(tmp_path), audio_encoder="0123", mel="0123", tiled="yes")
    TrainingData(str(tmp_path), PICTURES).check(files)
    with pytest.raises(SpecError, match=r"audio VAE .* and its sounds were made"):
        TrainingData(str(tmp_path), BOTH).check(files)


def test_media_that_were_prepared_otherwise_are_warned_of(tmp_path, files, caplog):
    _with_fingerprints(tiny_dataset(tmp_path), preprocessing="0")
    TrainingData(str(tmp_path), BOTH).check(files)
    assert "prepares media otherwise" in caplog.text


def test_an_imported_dataset_is_accepted_with_a_warning(tmp_path, files, caplog):
    tiny_dataset(tmp_path, fingerprints=False)
    with caplog.at_level(logging.WARNING):
        TrainingData(str(tmp_path), BOTH).check(files)
    assert "does not say which weights encoded it" in caplog.text


@pytest.mark.parametrize(
    ("field", "streams", "said"),
    [
        ("in_channels", PICTURES, "tokens of its video have 16 numbers .* reads 8 and 64"),
        ("audio_in_channels", BOTH, "tokens of its audio have 32 numbers .* reads 8 and 64"),
    ],
)
def test_an_imported_dataset_of_other_widths_is_refused(tmp_path, files, field, streams, said):
    tiny_dataset(tmp_path, fingerprints=False)
    with pytest.raises(SpecError, match=said):
        TrainingData(str(tmp_path), streams).check(_with(files, field, 8))


def test_an_imported_dataset_of_other_texts_is_refused(tmp_path, files):
    tiny_dataset(tmp_path, fingerprints=False)
    other = ModelFiles(files.spec)
    other.text = files.text.model_copy(update={"connector_attention_head_dim": 4})
    with pytest.raises(SpecError, match="its texts 64, but the model reads 16 and 16"):
        TrainingData(str(tmp_path), PICTURES).check(other)


def test_a_stream_that_the_model_lacks_is_refused(tmp_path, files):
    tiny_dataset(tmp_path)
    with pytest.raises(SpecError, match="leave audio out of the strategy"):
        TrainingData(str(tmp_path), BOTH).check(_with(files, "streams", "video"))


def test_a_rectangle_that_covers_a_clip_is_refused(tmp_path, files):
    tiny_dataset(tmp_path, shapes=((2, 2, 3), (2, 3, 2)))
    TrainingData(str(tmp_path), of_video(SpatialCrop(region=(0, 0, 64, 64)))).check(files)
    data = TrainingData(str(tmp_path), of_video(SpatialCrop(region=(0, 0, 300, 64))))
    with pytest.raises(SpecError, match=re.escape("'clip 1', which have 64 x 96 pixels")):
        data.check(files)


def _with(files, field, value) -> ModelFiles:
    """The same files, as if they were of another transformer."""
    other = ModelFiles(files.spec)
    other.transformer = files.transformer.model_copy(update={field: value})
    return other


def _with_references(folder, pairs, fps=(24.0,)) -> None:
    """Clips ``clip 0``, ... of latent sizes, and references of other ones."""
    rows = []
    for number, (size, its_size) in enumerate(pairs):
        made = row(number, kind="all")
        tensors = {
            "video_latents": torch.zeros(4, *size),
            "reference_latents": torch.zeros(4, *its_size),
        }
        tensors = {name: tensor.bfloat16() for name, tensor in tensors.items()}
        info = made.info.model_copy(update={"reference_fps": fps[number % len(fps)]})
        rows.append(SampleRow(info=info, tensors={"text": made.tensors["text"], **tensors}))
    encoded(folder, [rows])


def _with_fingerprints(folder, **changed) -> None:
    storage = Storage(folder)
    info = read_info(storage)
    changed = {**info.fingerprints, **changed}
    write_info(storage, info.model_copy(update={"fingerprints": changed}))
