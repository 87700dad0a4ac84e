"""A corpus of everything through the whole job on Ray."""

from pathlib import Path

import numpy as np
import pytest

from rayreel.config.buckets import Bucket
from tests.corpus import corpus_spec_values
from tests.runs.encoding.conftest import EncodeJob, write_job

pytestmark = pytest.mark.ray


@pytest.fixture(scope="module")
def done(ray_cluster, corpus, tmp_path_factory) -> EncodeJob:
    """The corpus, encoded by workers of a cluster."""
    folder, _ = corpus
    job = write_job(tmp_path_factory.mktemp("job"), corpus_spec_values(folder, Path("out")))
    result = job.run()
    assert result.exit_code == 1, result.output
    return job


def test_every_clip_of_the_corpus_becomes_what_is_expected_of_it(done, corpus):
    _, clips = corpus
    assert len(clips) >= 40
    results = done.results
    assert {clip.name: results[clip.name]["status"] for clip in clips} == {
        clip.name: clip.expect for clip in clips
    }
    for clip in clips:
        found = results[clip.name]
        assert clip.why in f"{found['rule']}: {found['reason']}", clip.name


def test_samples_are_what_their_files_hold(done, corpus):
    _, clips = corpus
    expected = {clip.name: clip for clip in clips if clip.expect == "done"}
    dataset = done.dataset
    assert sorted(dataset[i].info.name for i in range(len(dataset))) == sorted(expected)
    for index in range(len(dataset)):
        sample = dataset[index]
        clip, bucket = expected[sample.info.name], sample.info.bucket
        assert isinstance(bucket, Bucket)
        assert sample.video_latents is not None
        assert sample.video_latents.shape[1:] == (
            (bucket.num_frames - 1) // 8 + 1,
            bucket.height // 32,
            bucket.width // 32,
        )
        assert (sample.audio_latents is not None) == clip.sound, clip.name
        assert sample.info.caption_original == clip.caption
        assert sample.text is not None
        assert sample.text.length == 1024


def test_latents_are_finite_and_those_of_different_clips_differ(done):
    dataset = done.dataset
    latents = [dataset[index].video_latents.float() for index in range(len(dataset))]
    assert all(one.isfinite().all() for one in latents)
    same = [one for one in latents if one.shape == latents[0].shape]
    assert len({one.numpy().tobytes() for one in same}) > len(same) // 2


def test_dataset_json_counts_what_is_there(done, corpus):
    _, clips = corpus
    info, dataset = done.dataset.info, done.dataset
    assert info.num_samples == sum(clip.expect == "done" for clip in clips)
    assert info.statistics.with_audio == sum(
        dataset[index].audio_latents is not None for index in range(len(dataset))
    )
    assert {"video_encoder", "audio_encoder", "language_model"} <= info.fingerprints.keys()
    values = np.concatenate(
        [dataset[i].video_latents.float().flatten(1).numpy() for i in range(len(dataset))], axis=1
    )
    np.testing.assert_allclose(info.statistics.video_latents.mean, values.mean(1), atol=1e-4)


def test_a_second_run_encodes_nothing_and_changes_no_shard(done):
    before, records = done.shards, done.records
    result = done.run()
    assert result.exit_code == 1
    assert "nothing new" in result.stdout
    assert done.shards == before
    assert done.records == records


def test_this_process_alone_makes_the_same_shards(done, corpus, tmp_path):
    folder, _ = corpus
    alone = write_job(tmp_path, corpus_spec_values(folder, Path("out")))
    assert alone.encode().exit_code == 1
    assert alone.shards == done.shards


def test_the_page_shows_what_became_of_the_corpus(done):
    page = (done.output / "index.html").read_text()
    assert "near_duplicate" in page
    assert "HDR" in page
