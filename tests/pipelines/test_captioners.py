"""Captions from a server and from a local model: what they are shown, and what they answer."""

import base64
import io
import json
import wave
from typing import Any
from uuid import uuid4

import fsspec
import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from starlette.responses import JSONResponse, PlainTextResponse

from rayreel.config.encode import CaptionSpec, LocalCaptioner, OpenAICaptioner
from rayreel.errors import CheckpointError, ItemError, MediaError, RetryableError, SpecError
from rayreel.media.mux import write_clip
from rayreel.pipelines.caption_views import (
    INSTRUCTIONS,
    SOUND_RATE_HZ,
    Stretch,
    View,
    sampled_frames,
    view_of,
)
from rayreel.pipelines.captioners import Answer, caption_key, caption_of, make_captioner
from rayreel.pipelines.devices import Device
from rayreel.types import Audio, Clip
from tests.captions_server import CAPTION, captions_server, completion, failure
from tests.media.samples import grey_levels, write_video, write_wav
from tests.pipelines.small import DEVICE
from tests.pipelines.test_enhance import write_gemma

KEY = "sk-0123456789abcdef"
VIEW = View(text="Describe.", frames=(Image.new("RGB", (8, 8), "red"),))
needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")


def served(url: str, **fields) -> CaptionSpec:
    choice = {"url": url, "model": "tiny", "max_retries": 2, "timeout_s": 20.0, **fields}
    return CaptionSpec(captioner=OpenAICaptioner(**choice))


def asked(url: str, view: View = VIEW, **fields) -> Answer:
    return make_captioner(served(url, **fields), DEVICE)(view)


def stretch(source, **fields) -> Stretch:
    usual = {"kind": "video", "start": 0, "num_frames": 48, "fps": 24.0}
    values: Any = {"source": str(source), **usual, **fields}
    return Stretch(**values)


@pytest.fixture(scope="module")
def video(tmp_path_factory):
    path = tmp_path_factory.mktemp("video") / "grey.mkv"
    write_video(path, grey_levels(60))
    return path


def test_a_request_has_the_frames_the_sound_and_then_the_text():
    view = View(text="Describe.", frames=VIEW.frames * 2, sound=b"RIFF")
    with captions_server() as server:
        assert asked(server.url, view) == Answer(text=CAPTION)
    ((_, body),) = server.requests
    assert (body["model"], body["temperature"], body["max_tokens"]) == ("tiny", 0, 512)
    first, second, sound, text = server.parts
    assert first == second
    head, _, jpeg = first["image_url"]["url"].partition(",")
    assert head == "data:image/jpeg;base64"
    assert Image.open(io.BytesIO(base64.b64decode(jpeg))).format == "JPEG"
    assert sound["input_audio"] == {"data": base64.b64encode(b"RIFF").decode(), "format": "wav"}
    assert text == {"type": "text", "text": "Describe."}


@pytest.mark.parametrize(("key", "sent"), [(KEY, KEY), ("", "none"), (None, "none")])
def test_the_key_is_that_of_the_environment(monkeypatch, key, sent):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    if key is not None:
        monkeypatch.setenv("OPENAI_API_KEY", key)
    with captions_server() as server:
        asked(server.url)
    ((headers, _),) = server.requests
    assert headers["authorization"] == f"Bearer {sent}"


@pytest.mark.parametrize("status", [429, 500, 503])
def test_what_may_go_otherwise_is_asked_again(status):
    with captions_server(failure(status), failure(status)) as server:
        assert asked(server.url) == Answer(text=CAPTION)
    assert len(server.requests) == 3


@pytest.mark.parametrize("status", [429, 500, 503])
def test_what_still_may_go_otherwise_after_all_tries_is_retryable(status):
    with (
        captions_server(*[failure(status)] * 3) as server,
        pytest.raises(RetryableError, match=f"status {status}"),
    ):
        asked(server.url)
    assert len(server.requests) == 3


@pytest.mark.parametrize("status", [400, 413, 422])
def test_a_request_that_a_server_does_not_take_is_final(status):
    with (
        captions_server(failure(status, "too many images")) as server,
        pytest.raises(ItemError, match="too many images") as caught,
    ):
        asked(server.url)
    assert not isinstance(caught.value, RetryableError)
    assert len(server.requests) == 1


@pytest.mark.parametrize("status", [401, 403, 404])
def test_a_wrong_key_or_model_is_the_fault_of_the_spec(status):
    with (
        captions_server(failure(status)) as server,
        pytest.raises(SpecError, match="OPENAI_API_KEY"),
    ):
        asked(server.url)
    assert len(server.requests) == 1


def test_a_server_that_does_not_answer_in_time_is_retryable():
    with (
        captions_server(delay_s=0.5) as server,
        pytest.raises(RetryableError, match=r"in 2 tries of 0\.1 s"),
    ):
        asked(server.url, timeout_s=0.1, max_retries=1)
    assert len(server.requests) == 2


def test_a_server_that_is_not_there_is_retryable_and_its_login_is_not_told():
    with pytest.raises(RetryableError, match="captioner at 127") as caught:
        asked("http://me:hidden@127.0.0.1:9/v1", max_retries=0)
    assert "hidden" not in str(caught.value)


@pytest.mark.parametrize("status", [200, 400, 401, 500])
def test_the_key_is_in_no_error_even_where_the_server_repeats_it(monkeypatch, status):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    response = JSONResponse({"error": {"message": f"wrong key {KEY}"}}, status)
    with (
        captions_server(response) as server,
        pytest.raises((ItemError, SpecError)) as caught,
    ):
        asked(server.url, max_retries=0)
    assert "wrong key ***" in str(caught.value)
    assert KEY not in str(caught.value)
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__


@pytest.mark.parametrize(
    "response",
    [
        PlainTextResponse("<html>a proxy</html>"),
        PlainTextResponse("{", media_type="application/json"),
        JSONResponse({"choices": []}),
        JSONResponse({"choices": None}),
        JSONResponse({"choices": [{}]}),
        JSONResponse([1]),
    ],
)
def test_what_is_no_chat_completion_is_retryable(response):
    with captions_server(response) as server, pytest.raises(RetryableError, match="no chat compl"):
        asked(server.url)


@pytest.mark.parametrize(
    "response",
    [completion(None, refusal="I will not."), completion("A", finish="content_filter")],
)
def test_a_refusal_is_final(response):
    with captions_server(response) as server, pytest.raises(ItemError, match="refuses") as caught:
        asked(server.url)
    assert not isinstance(caught.value, RetryableError)


def test_an_answer_that_was_cut_says_so():
    with captions_server(completion("A fox", finish="length")) as server:
        assert asked(server.url) == Answer(text="A fox", cut=True)


@pytest.mark.parametrize(
    ("answer", "caption"),
    [
        (" A fox.\n", "A fox."),
        ("<think>A fox?</think>\n\nA cat.", "A cat."),
        ("A fox?</think>A cat.", "A cat."),
        ("<thinking>\nA\n</thinking>A cat.", "A cat."),
        ('{"combined_caption_english": "A \\"cat\\".\\nIt runs."}', 'A "cat".\nIt runs.'),
        ('```json\n{"a": 1, "combined_caption_english": "A cat."}\n```', "A cat."),
        ('<think>{}</think>{"combined_caption_english": "A cat is', "A cat is"),
        ('{"combined_caption_english": "A cat is\\', "A cat is"),
        ('{"combined_caption_english": "A cat is \\u00', "A cat is"),
        ('{"combined_caption_english": "a \\\\', "a \\"),
        ("```\nA cat.\n```", "A cat."),
        ("A\x1b[31m cat\x00\u202e.\ud800", "A [31m cat  ."),
        ("Write {1}.", "Write {1}."),
    ],
)
def test_the_caption_is_found_in_the_answer(answer, caption):
    assert caption_of(Answer(text=answer)) == caption


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (Answer(text=" \n"), "has no words$"),
        (Answer(text="<think>A fox", cut=True), "captions.max_tokens"),
        (Answer(text='{"caption": "A fox."}'), "without combined_caption_english"),
        (Answer(text="A fox. " * 10_000), "at most 20000"),
    ],
)
def test_an_answer_without_a_caption_is_an_error(answer, said):
    with pytest.raises(ItemError, match=said):
        caption_of(answer)


@pytest.mark.parametrize(
    ("num_frames", "fps", "most", "shown"),
    [
        (48, 24.0, 32, [0, 12, 24, 36]),
        (49, 24.0, 32, [0, 12, 24, 36, 48]),
        (48, 24.0, 2, [0, 24]),
        (1, 24.0, 32, [0]),
        (3, 1.0, 32, [0, 1, 2]),
        (50, 25.0, 32, [0, 12, 25, 37]),
    ],
)
def test_frames_are_spread_over_the_scene(num_frames, fps, most, shown):
    assert sampled_frames(num_frames, fps=fps, wanted_fps=2, most=most) == shown


def test_no_more_frames_are_shown_than_asked_for():
    for num_frames in range(1, 400):
        for most in (1, 3, 7, 32):
            shown = sampled_frames(num_frames, fps=30000 / 1001, wanted_fps=29, most=most)
            assert 0 < len(shown) <= most
            assert shown == sorted(set(shown))


def test_the_frames_of_a_scene_are_those_that_the_file_has_there(video):
    view = view_of(stretch(video, start=10), served(""))
    assert [frame.getpixel((0, 0)) for frame in view.frames] == [
        (level, level, level) for level in (10, 22, 34, 46)
    ]
    assert view.text.startswith("You see 4 frames, evenly spaced and in order, of a clip of 2 sec")
    assert view.text.endswith(INSTRUCTIONS["video"])


def test_a_scene_that_the_file_does_not_have_is_an_error(video):
    with pytest.raises(MediaError, match="ends before frame 66"):
        view_of(stretch(video, start=30), served(""))


def samples(view: View) -> np.ndarray:
    with wave.open(io.BytesIO(view.sound)) as file:
        assert (file.getnchannels(), file.getframerate()) == (1, SOUND_RATE_HZ)
        return np.frombuffer(file.readframes(-1), np.int16)


def test_the_sound_of_a_scene_is_that_of_its_frames(tmp_path):
    rate = 48000
    tone = torch.sin(torch.arange(rate * 3 // 2) / rate * 2 * torch.pi * 440)
    tone[: rate // 2] = tone[rate:] = 0
    audio = Audio(waveform=tone.expand(2, -1), sample_rate_hz=rate)
    write_clip(tmp_path / "clip.mp4", Clip(frames=grey_levels(36), fps=24.0, audio=audio))
    scenes = [stretch(tmp_path / "clip.mp4", start=s, num_frames=12) for s in (0, 12, 24)]
    views = [view_of(scene, served("", audio=True)) for scene in scenes]
    before, during, after = (np.abs(samples(view)).mean() / 32768 for view in views)
    assert during == pytest.approx(2 / np.pi, rel=0.05)
    assert max(before, after) < 0.02
    assert {view.text.split("\n")[1] for view in views} == {INSTRUCTIONS["video with sound"]}


def test_large_frames_are_made_smaller_and_small_ones_are_left(tmp_path):
    for name, size in {"large": (1200, 600), "small": (40, 20)}.items():
        Image.new("RGB", size).save(tmp_path / f"{name}.png")
    views = [
        view_of(stretch(tmp_path / f"{name}.png", kind="image", num_frames=1, fps=1), served(""))
        for name in ("large", "small")
    ]
    assert [view.frames[0].size for view in views] == [(512, 256), (40, 20)]
    assert {view.text for view in views} == {INSTRUCTIONS["image"]}


def test_sound_is_a_wav_in_mono_at_16_khz(tmp_path):
    tone = np.sin(np.arange(24000) / 8000 * 2 * np.pi * 440) * 20000
    write_wav(tmp_path / "tone.wav", np.stack([tone, tone], 1).astype(np.int16))
    sound = stretch(tmp_path / "tone.wav", kind="audio", num_frames=0, fps=0)
    view = view_of(sound, served("", audio=True))
    assert (view.frames, view.note, view.text) == ((), None, INSTRUCTIONS["audio"])
    heard = samples(view)
    assert len(heard) == pytest.approx(3 * SOUND_RATE_HZ, abs=2)
    assert np.abs(np.fft.rfft(heard[:16000])).argmax() == 440
    assert np.abs(heard).max() == pytest.approx(20000, rel=0.05)


def test_what_is_not_heard_of_a_long_sound_is_told(tmp_path):
    write_wav(tmp_path / "long.wav", np.zeros((310 * 100, 1), np.int16), rate=100)
    sound = stretch(tmp_path / "long.wav", kind="audio", num_frames=0, fps=0)
    view = view_of(sound, served("", audio=True))
    assert len(view.sound) == pytest.approx(300 * SOUND_RATE_HZ * 2, rel=0.01)
    assert view.note == "the captioner heard the first 300 s of the sound alone"


def test_a_silent_video_is_shown_without_sound(video):
    assert view_of(stretch(video), served("", audio=True)) == view_of(stretch(video), served(""))


def test_sound_alone_is_not_for_captioners_that_hear_nothing(tmp_path):
    write_wav(tmp_path / "tone.wav", np.zeros((100, 1), np.int16))
    with pytest.raises(ItemError, match="hears nothing"):
        view_of(stretch(tmp_path / "tone.wav", kind="audio", num_frames=0), served(""))


def test_an_instruction_of_the_spec_takes_the_place_of_ours(video):
    spec = served("").model_copy(update={"instruction": "Count."})
    assert view_of(stretch(video), spec).text.split("\n")[1:] == ["Count."]


def test_files_of_a_store_are_read_too(video):
    source = f"memory://{uuid4().hex}/grey.mkv"
    with fsspec.open(source, "wb") as file:
        file.write(video.read_bytes())
    assert view_of(stretch(source), served("")) == view_of(stretch(video), served(""))


def key(spec: CaptionSpec, *, content="a", start=0, num_frames=9) -> str:
    return caption_key(spec, content=content, start=start, num_frames=num_frames)


def test_everything_that_a_caption_depends_on_is_in_its_key():
    spec = served("http://a/v1")
    changed = [
        served("http://a/v1", model="other"),
        served("http://a/v1", audio=True),
        *(
            spec.model_copy(update=fields)
            for fields in ({"instruction": "Count."}, {"fps": 3}, {"max_frames": 3})
        ),
        spec.model_copy(update={"max_tokens": 3}),
    ]
    keys = [key(one) for one in (spec, *changed)]
    keys += [key(spec, content="b"), key(spec, start=1), key(spec, num_frames=10)]
    assert len(set(keys)) == len(keys)


def test_where_a_server_runs_and_how_captions_are_cleaned_is_not_in_the_key():
    spec = served("http://a/v1")
    others = [
        served("http://b/v1", timeout_s=1, max_retries=0),
        spec.model_copy(update={"clean": False, "trigger": "FOX", "prefixes": ()}),
    ]
    assert {key(other) for other in others} == {key(spec)}


def local(folder, max_tokens=12) -> CaptionSpec:
    return CaptionSpec(captioner=LocalCaptioner(folder=str(folder)), max_tokens=max_tokens)


@pytest.fixture(scope="module")
def gemma(tmp_path_factory):
    """A folder that has settings for sampling too, as folders of real models have."""
    folder = write_gemma(tmp_path_factory.mktemp("gemma"))
    settings = {"do_sample": True, "temperature": 0.7, "top_k": 64, "top_p": 0.95}
    (folder / "generation_config.json").write_text(json.dumps(settings | {"eos_token_id": [1, 6]}))
    return folder


def noise(seed: int) -> Image.Image:
    drawn = np.random.default_rng(seed).integers(0, 256, (40, 60, 3), np.uint8)
    return Image.fromarray(drawn)


def test_a_local_model_gives_the_same_text_twice(gemma):
    view = View(text="Describe.", frames=(noise(0), noise(1)))
    captioner = make_captioner(local(gemma), DEVICE)
    first = captioner(view)
    assert first.text
    assert captioner(view) == first == make_captioner(local(gemma), DEVICE)(view)
    assert captioner.loads == ("Gemma3ForConditionalGeneration",)


def test_a_local_model_is_given_every_frame_and_the_text(gemma, monkeypatch):
    captioner: Any = make_captioner(local(gemma), DEVICE)
    given, generate = [], captioner._model.generate

    def watched(**inputs):
        given.append(inputs)
        return generate(**inputs)

    monkeypatch.setattr(captioner._model, "generate", watched)
    for frames in ((noise(0), noise(1)), (noise(0), noise(2)), ()):
        captioner(View(text="Describe.", frames=frames))
    one, other, blind = given
    assert torch.equal(one["pixel_values"][0], other["pixel_values"][0])
    assert not torch.equal(one["pixel_values"][1], other["pixel_values"][1])
    assert "pixel_values" not in blind
    text = captioner._processor.tokenizer.decode(blind["input_ids"][0])
    assert text == "<bos><start_of_turn>user\nDescribe.<end_of_turn>\n<start_of_turn>model\n"
    assert (one["do_sample"], one["max_new_tokens"]) == (False, 12)


def test_a_local_model_that_reaches_the_most_tokens_is_cut(gemma):
    captioner = make_captioner(local(gemma, max_tokens=3), DEVICE)
    assert captioner(VIEW).cut


@pytest.mark.gpu
@needs_cuda
def test_a_local_model_answers_on_a_gpu(gemma):
    captioner = make_captioner(local(gemma), Device("cuda", "bfloat16", "test"))
    assert captioner(VIEW).text
    assert captioner(VIEW) == captioner(VIEW)


def copied(gemma, folder):
    folder.mkdir()
    for file in gemma.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    return folder


def test_weights_that_are_missing_are_not_made_up(gemma, tmp_path):
    folder = copied(gemma, tmp_path / "model")
    weights = load_file(folder / "model.safetensors")
    del weights["language_model.model.layers.0.mlp.up_proj.weight"]
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(CheckpointError, match="1 weights are missing"):
        make_captioner(local(folder), DEVICE)


def test_pickled_weights_are_not_read(gemma, tmp_path):
    folder = copied(gemma, tmp_path / "model")
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match="safetensors"):
        make_captioner(local(folder), DEVICE)


def test_no_code_of_the_folder_runs(gemma, tmp_path):
    folder = copied(gemma, tmp_path / "model")
    config = json.loads((folder / "config.json").read_text())
    config |= {"model_type": "own", "auto_map": {"AutoConfig": "own.Config"}}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "own.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\nclass Config: ...\n")
    with pytest.raises(CheckpointError):
        make_captioner(local(folder), DEVICE)
    assert not (tmp_path / "ran").exists()


def test_a_folder_without_a_chat_template_or_no_folder_is_an_error(gemma, tmp_path):
    folder = copied(gemma, tmp_path / "model")
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    del settings["chat_template"]
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    with pytest.raises(CheckpointError, match="no chat template"):
        make_captioner(local(folder), DEVICE)
    for ask in (key, lambda spec: make_captioner(spec, DEVICE)):
        with pytest.raises(CheckpointError, match="is not a folder"):
            ask(local(tmp_path / "nowhere"))


def test_the_weights_of_a_local_model_are_in_the_key_and_its_place_is_not(gemma, tmp_path):
    same, other = copied(gemma, tmp_path / "same"), copied(gemma, tmp_path / "other")
    weights = load_file(other / "model.safetensors")
    name = "language_model.model.norm.weight"
    save_file({**weights, name: weights[name] + 1}, other / "model.safetensors", {"format": "pt"})
    assert key(local(same)) == key(local(gemma)) != key(local(other))
