"""``.precomputed`` folders: what LTX-2's trainers read, and all that they ever wrote."""

import logging
import pickle
from pathlib import Path
from uuid import uuid4

import fsspec
import pytest
import torch

from rayreel.config.buckets import Bucket
from rayreel.data.precomputed import export_precomputed, import_precomputed
from rayreel.data.reader import LatentDataset
from rayreel.errors import RayreelError
from rayreel.types import ScaleFactors
from tests.data.encoded import assert_same_tensors, encoded, row

TOKENS = 8


def video(seed=0, *, fps: float | None = 25.0, shape=(4, 2, 2, 3), dtype=torch.bfloat16):
    latents = torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(dtype)
    _, frames, height, width = shape
    sizes = {"latents": latents, "num_frames": frames, "height": height, "width": width}
    return sizes | ({} if fps is None else {"fps": fps})


def audio(steps=5):
    return {
        "latents": torch.ones(8, steps, 16),
        "num_time_steps": steps,
        "frequency_bins": 16,
        "duration": 0.2,
    }


def text(*names, valid=3, width=6):
    padded = torch.zeros(TOKENS, width)
    padded[-valid:] = torch.arange(valid * width).view(valid, width)
    mask = torch.tensor([0] * (TOKENS - valid) + [1] * valid)
    return {name: padded.bfloat16() + n for n, name in enumerate(names)} | {
        "prompt_attention_mask": mask
    }


def put(folder: Path, name: str, contents) -> None:
    path = folder / f"{name}.pt"
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(contents, path)


@pytest.fixture
def given(tmp_path):
    """A folder with samples b and sub/a."""
    for name in ("b", "sub/a"):
        put(tmp_path / "given", f"latents/{name}", video())
        put(tmp_path / "given", f"conditions/{name}", text("video_prompt_embeds"))
    return tmp_path / "given"


@pytest.fixture
def samples(given, tmp_path):
    """Imports what ``given`` holds."""

    def imported(folder=given, **options):
        target = tmp_path / uuid4().hex
        import_precomputed(folder, target, **options)
        dataset = LatentDataset(target)
        return [dataset[index] for index in range(len(dataset))]

    return imported


@pytest.fixture
def dataset(tmp_path):
    rows = [row(0, kind="all"), row(1, kind="image"), row(2, split_text=True), row(3, kind="sound")]
    encoded(tmp_path / "set", [rows[:3], rows[3:]])
    return tmp_path / "set", rows


@pytest.mark.parametrize("where", ["local", "memory", "s3"])
def test_an_export_comes_back_without_a_loss(dataset, where, tmp_path, request):
    uri, rows = dataset
    folder = str(tmp_path / "out [a]*") if where == "local" else f"memory://{uuid4().hex}"
    if where == "s3":
        folder = f"{request.getfixturevalue('s3_server').url}/{uuid4().hex}"
    assert export_precomputed(uri, folder) == 4
    info = import_precomputed(folder, tmp_path / "back", shard_samples=3)
    assert [shard.samples for shard in info.shards] == [3, 1]
    back = LatentDataset(tmp_path / "back")
    assert back.info.statistics == LatentDataset(uri).info.statistics
    for index, expected in enumerate(rows):
        assert back[index].info == expected.info
        assert_same_tensors(back[index], expected)


def contents(folder, name):
    (found,) = (folder / name).glob("*.pt")
    return torch.load(found, weights_only=True)


def test_exported_latents_are_those_that_trainers_read(tmp_path):
    one = row(0, kind="all")
    encoded(tmp_path / "set", [[one]])
    export_precomputed(tmp_path / "set", tmp_path / "out")
    latents = contents(tmp_path / "out", "latents")
    assert torch.equal(latents.pop("latents"), one.tensors["video_latents"])
    assert latents == {"num_frames": 2, "height": 2, "width": 3, "fps": 24.0}
    assert all(type(latents[name]) is int for name in ("num_frames", "height", "width"))
    sound = contents(tmp_path / "out", "audio_latents")
    assert sound.pop("latents").dtype == torch.float32
    assert sound == {"num_time_steps": 5, "frequency_bins": 16, "duration": 0.375}
    mask = contents(tmp_path / "out", "video_masks")["mask"]
    assert (mask.dtype, tuple(mask.shape)) == (torch.float32, (2, 2, 3))
    assert contents(tmp_path / "out", "audio_masks")["mask"].shape == (5,)
    reference = contents(tmp_path / "out", "reference_latents")
    assert (reference["num_frames"], reference["fps"]) == (2, 12.0)
    assert contents(tmp_path / "out", "reference_audio_latents")["duration"] == 0.12


@pytest.mark.parametrize("split", [False, True])
def test_exported_texts_are_filled_up_on_the_left_for_every_release(tmp_path, split):
    one = row(1, split_text=split)
    encoded(tmp_path / "set", [[one]])
    export_precomputed(tmp_path / "set", tmp_path / "out")
    found = contents(tmp_path / "out", "conditions")
    mask = found.pop("prompt_attention_mask")
    assert mask.tolist() == [0] * 12 + [1] * 4
    assert set(found) == {"video_prompt_embeds", "audio_prompt_embeds"} | (
        set() if split else {"prompt_embeds"}
    )
    for name, embeds in found.items():
        own = (
            one.tensors[name.removesuffix("_prompt_embeds").join(["text_", ""])] if split else None
        )
        assert embeds.dtype == torch.bfloat16
        assert torch.equal(embeds[12:], one.tensors["text"] if own is None else own)
        assert not embeds[:12].any()


def test_files_are_named_safely_and_never_alike(tmp_path):
    names = ["../../etc/x", "a", "A", "a", "latent_a", "/abs", "é", "", "con", "x" * 500]
    rows = [
        row(n).__class__(info=row(n).info.model_copy(update={"name": name}), tensors=row(n).tensors)
        for n, name in enumerate(names)
    ]
    encoded(tmp_path / "set", [rows])
    export_precomputed(tmp_path / "set", tmp_path / "out")
    files = sorted(path.name for path in (tmp_path / "out" / "latents").iterdir())
    assert len({file.casefold() for file in files}) == len(names)
    assert files[:5] == [
        "000000-.._.._etc_x.pt", "000001-a.pt", "000002-A.pt", "000003-a.pt", "000004-latent_a.pt",
    ]  # fmt: skip
    assert max(map(len, files)) < 120
    assert len(list(tmp_path.rglob("*.pt"))) == 3 * len(names)


def test_an_export_can_be_repeated_and_is_not_mixed_with_others(dataset, tmp_path):
    uri, _ = dataset
    export_precomputed(uri, tmp_path / "out")
    assert export_precomputed(uri, tmp_path / "out") == 4
    put(tmp_path / "out", "latents/sub/other", video())
    with pytest.raises(RayreelError, match=r"latents has 1 file\(s\) of other samples.*sub/other"):
        export_precomputed(uri, tmp_path / "out")


def test_an_export_goes_where_trainers_read(dataset, tmp_path):
    (tmp_path / "out" / ".precomputed").mkdir(parents=True)
    export_precomputed(dataset[0], tmp_path / "out")
    assert [path.name for path in (tmp_path / "out").iterdir()] == [".precomputed"]


def test_samples_are_found_in_folders_within_and_sorted(samples):
    assert [sample.info.name for sample in samples()] == ["b", "sub/a"]
    assert [sample.info.row for sample in samples()] == [1, 2]
    assert len({sample.info.sample_id for sample in samples()}) == 2


def test_the_child_is_read_if_there_is_one(given, samples, tmp_path):
    given.rename(tmp_path / ".precomputed")
    assert len(samples(tmp_path)) == 2


def test_what_the_files_tell_becomes_columns(samples):
    info = samples()[0].info
    assert info.bucket == Bucket(width=96, height=64, num_frames=9)
    assert (info.fps, info.text_length, info.source) == (25.0, TOKENS, "latents/b.pt")
    assert info.duration_s == pytest.approx(9 / 25)
    small = samples(factors=ScaleFactors(4, 16, 16))[0].info
    assert small.bucket == Bucket(width=48, height=32, num_frames=5)


def test_a_rate_that_is_missing_is_24(given, samples):
    put(given, "latents/b", video(fps=None))
    assert samples()[0].info.fps == 24


def test_flat_latents_are_unfolded_frames_first(given, samples):
    whole = video(1)
    flat = whole["latents"].permute(1, 2, 3, 0).reshape(-1, 4)
    put(given, "latents/b", whole | {"latents": flat})
    assert torch.equal(samples()[0].video_latents, whole["latents"])


def test_old_pairs_are_matched(tmp_path, samples):
    put(tmp_path / "old", "latents/sub/latent_7", video())
    put(tmp_path / "old", "conditions/sub/condition_7", text("prompt_embeds"))
    (sample,) = samples(tmp_path / "old")
    assert sample.text is not None
    assert sample.text.audio is sample.text.video


@pytest.mark.parametrize(
    ("names", "widths"),
    [
        (["prompt_embeds"], (6, 6)),
        (["video_prompt_embeds"], (6, 0)),
        (["video_prompt_embeds", "audio_prompt_embeds"], (6, 6)),
    ],
)
def test_texts_of_every_release_are_read(given, samples, names, widths):
    put(given, "conditions/b", text(*names))
    found = samples()[0].text
    assert (found.video.shape, found.audio.shape) == ((3, widths[0]), (3, widths[1]))
    assert torch.equal(found.video, torch.arange(18).view(3, 6).bfloat16())
    assert (found.audio is found.video) == (names == ["prompt_embeds"])
    assert found.length == TOKENS


def test_a_text_that_is_stored_for_each_stream_alike_is_kept_once(given, samples):
    both = text("video_prompt_embeds")
    put(given, "conditions/b", both | {"audio_prompt_embeds": both["video_prompt_embeds"].clone()})
    found = samples()[0].text
    assert found.audio is found.video


def test_only_samples_that_every_folder_has_are_kept(given, samples, caplog):
    put(given, "audio_latents/sub/a", audio())
    with caplog.at_level(logging.WARNING):
        (sample,) = samples()
    assert sample.info.name == "sub/a"
    assert sample.audio_latents is not None
    assert "1 of 2 samples are left out: b.pt (not in audio_latents)" in caplog.text
    assert len(samples(sources=["latents", "conditions"])) == 2


def test_latents_say_which_samples_there_are_else_the_first_folder(given, samples):
    put(given, "conditions/only a text", text("prompt_embeds"))
    assert len(samples()) == 2
    put(given, "audio_latents/b", audio())
    assert [sample.info.name for sample in samples(sources=["audio_latents"])] == ["b"]
    assert samples(sources=["audio_latents"])[0].info.duration_s == 0.2


def test_wider_numbers_are_told(given, samples):
    put(given, "latents/b", video(dtype=torch.float32))
    first, second = samples()
    assert first.info.notes == ("latents were float32 and are kept as bfloat16",)
    assert second.info.notes == ()


class Harmful:
    def __reduce__(self):
        return (Path.touch, (Path("harmful"),))


@pytest.mark.parametrize(
    ("damage", "expected"),
    [
        (lambda at: at.write_bytes(b""), r"latents/b\.pt is no file of tensors"),
        (lambda at: at.write_bytes(b"text"), r"latents/b\.pt is no file of tensors"),
        (lambda at: at.write_bytes(at.read_bytes()[:200]), r"latents/b\.pt is no file of tensors"),
        (
            lambda at: at.write_bytes(pickle.dumps(Harmful())),
            r"latents/b\.pt is no file of tensors",
        ),
        (lambda at: torch.save({"latents": Harmful()}, at), r"latents/b\.pt is no file of tensors"),
        (lambda at: torch.save([1], at), r"latents/b\.pt should hold a dictionary, not a list"),
        (lambda at: torch.save({"x": 1}, at), r"files of b\.pt .*: latents: it has no 'latents'"),
        (lambda at: torch.save({"latents": 1}, at), r"files of b\.pt are not those of a sample"),
        (lambda at: torch.save(video(fps=0.0), at), r"files of b\.pt are not those of a sample"),
        (
            lambda at: torch.save({"latents": torch.zeros(1, 2, 3)}, at),
            r"video_latents should be .*shape \(C, F, H, W\), not .*\(1, 2, 3\)",
        ),
    ],
)
def test_damaged_and_harmful_files_are_named_and_no_code_runs(
    given, samples, damage, expected, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    damage(given / "latents" / "b.pt")
    with pytest.raises(RayreelError, match=expected):
        samples()
    assert not Path("harmful").exists()


def test_a_folder_without_complete_samples_is_refused(given, samples, tmp_path):
    with pytest.raises(RayreelError, match=r"no complete sample: expected files .* found 0"):
        samples(tmp_path)
    with pytest.raises(RayreelError, match="has no folder 'audio_latents'; it has latents, cond"):
        samples(sources=["audio_latents"])
    with pytest.raises(RayreelError, match="'audio' is no folder of a dataset; there are latents"):
        samples(sources=["audio"])


def test_latents_of_two_models_are_refused(given, samples):
    put(given, "latents/b", video(shape=(5, 2, 2, 3)))
    with pytest.raises(RayreelError, match=r"no dataset of one model: .* 5 and 4 channels"):
        samples()


def test_what_came_to_an_export_later_is_imported_too(tmp_path, samples):
    encoded(tmp_path / "set", [[row(1, kind="image")]])
    export_precomputed(tmp_path / "set", tmp_path / "out")
    put(tmp_path / "out", "latents/later", video())
    put(tmp_path / "out", "conditions/later", text("prompt_embeds"))
    assert [sample.info.name for sample in samples(tmp_path / "out")] == ["clip 1", "later"]


def test_a_dataset_is_not_overwritten(given, dataset):
    with pytest.raises(RayreelError, match="holds a dataset already; import into another folder"):
        import_precomputed(given, dataset[0])


def test_a_listing_leads_to_no_other_files(dataset, tmp_path, caplog):
    export_precomputed(dataset[0], tmp_path / "out")
    listing = tmp_path / "out" / "samples.jsonl"
    put(tmp_path, "secret", video())
    name = next((tmp_path / "out" / "latents").iterdir()).name
    first, *others = sorted(listing.read_text().splitlines(), key=lambda line: name not in line)
    listing.write_text("\n".join([first.replace(name, "../../secret.pt"), *others]))
    import_precomputed(tmp_path / "out", tmp_path / "back")
    assert "1 of 5 samples are left out: ../../secret.pt (not in latents" in caplog.text
    listing.write_text("{}\n")
    with pytest.raises(RayreelError, match=r"line 1 of .*samples\.jsonl is damaged"):
        import_precomputed(tmp_path / "out", tmp_path / "again")


def test_the_files_of_an_export_hold_nothing_else_of_the_memory_that_they_lie_in(tmp_path):
    one = row(0)
    large = torch.zeros(1000, *one.tensors["video_latents"].shape, dtype=torch.bfloat16)
    tensors = dict(one.tensors) | {"video_latents": large[0]}
    encoded(tmp_path / "set", [[one.__class__(info=one.info, tensors=tensors)]])
    export_precomputed(tmp_path / "set", tmp_path / "out")
    file_system, _ = fsspec.url_to_fs(tmp_path)
    (found,) = file_system.find(f"{tmp_path}/out/latents")
    assert file_system.size(found) < 4000
