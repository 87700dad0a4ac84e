"""Single images by a Flux 2 pipeline of diffusers, tiny and random."""

import json
import shutil
import sys
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from rayreel.checkpoints.files import ModelFiles
from rayreel.checkpoints.tiny import locate_model
from rayreel.config.jobs import ImageModelSpec, ModelSpec
from rayreel.diffusion.watch import CancelToken, Watch
from rayreel.errors import Cancelled, CheckpointError, ItemError, MediaError, SpecError
from rayreel.pipelines.image import SingleImage, image_faults
from rayreel.pipelines.inputs import EncodedRequest
from rayreel.pipelines.ledger import ModelLedger
from rayreel.pipelines.registry import PIPELINE_CLASSES
from rayreel.requests.spec import read_model
from rayreel.types import Latents, TextContext
from tests.pipelines.flux import write_tiny_flux
from tests.pipelines.small import DEVICE, pinned, small


@pytest.fixture(scope="session")
def flux(tmp_path_factory):
    """Folder of a tiny Flux 2."""
    return write_tiny_flux(tmp_path_factory.mktemp("flux") / "klein")


@pytest.fixture
def copied(flux, tmp_path):
    """The same in a folder that a test may spoil."""
    return shutil.copytree(flux, tmp_path / "klein")


def model(folder, **fields: Any) -> ModelSpec:
    image = ImageModelSpec(folder=str(folder), **{"steps": 2, **fields})
    return locate_model("tiny").model_copy(update={"image_model": image})


def pipeline(folder, watch=None, **fields: Any) -> SingleImage:
    return SingleImage(ModelLedger(model(folder, **fields), DEVICE), watch)


def single(**fields: Any):
    return small(**{"width": 96, "height": 64, "num_frames": 1, "steps": None, **fields})


def picture_of(folder, *, settings: dict[str, Any] | None = None, **fields: Any) -> torch.Tensor:
    return pipeline(folder, **settings or {})(single(**fields)).frames


def faults_of(folder, **fields: Any) -> str:
    return "\n".join(image_faults(ImageModelSpec(folder=str(folder), **fields)))


def rewrite(path, **changes: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_a_clip_of_one_frame_comes_out_without_sound(flux):
    request = single(fps=25)
    image = pipeline(flux)
    context = TextContext(video=torch.empty(0, 1), audio=torch.empty(0, 1))
    (nothing,) = image.generate([EncodedRequest(request=request, context=context, negative=None)])
    assert nothing == Latents(video=None, audio=None)
    clip = image.decode(request, nothing)
    assert (clip.num_frames, clip.fps, clip.audio) == (1, 25, None)
    frames = clip.collect().frames
    assert (frames.shape, frames.dtype) == ((1, 64, 96, 3), torch.uint8)
    assert frames.float().std() > 1


def test_no_network_of_the_video_model_is_built(flux):
    image = pipeline(flux)
    image(single())
    assert image.ledger.loads == ()


def test_the_request_decides_the_picture(flux, picture):
    same, again, *others = (
        picture_of(flux, **fields)
        for fields in (
            {},
            {},
            {"seed": 2},
            {"prompt": "A heron."},
            {"images": (pinned(picture),)},
            {"images": (pinned(picture), pinned(picture))},
        )
    )
    assert torch.equal(same, again)
    assert len({other.numpy().tobytes() for other in (same, *others)}) == 1 + len(others)


def test_steps_and_guidance_are_the_model_s(flux):
    usual, explicit, stronger, longer = (
        picture_of(flux, settings=settings)
        for settings in ({}, {"guidance": 4.0}, {"guidance": 8.0}, {"steps": 3})
    )
    assert torch.equal(usual, explicit)
    assert not torch.equal(usual, stronger)
    assert not torch.equal(usual, longer)


@pytest.mark.parametrize(("distilled", "steps"), [(True, 4), (False, 28)])
def test_distilled_models_take_few_steps(tmp_path, distilled, steps):
    folder = write_tiny_flux(tmp_path / "klein", distilled=distilled)
    seen: list[tuple[str, int, int]] = []
    pipeline(folder, Watch(lambda *step: seen.append(step)), steps=None)(single())
    assert seen == [("image", step, steps) for step in range(steps)]


def test_a_run_stops_when_asked(flux):
    token = CancelToken()
    watch = Watch(lambda _, step, __: token.cancel() if step == 1 else None, token)
    with pytest.raises(Cancelled):
        pipeline(flux, watch, steps=3)(single())


def test_a_large_reference_is_scaled_down_to_an_area(flux, tmp_path):
    large, little = tmp_path / "large.png", tmp_path / "small.png"
    picture = Image.radial_gradient("L").resize((1600, 1000)).convert("RGB")
    picture.save(large)
    # 971 * 607 is just below 768 * 768; diffusers itself would scale to 1024 * 1024.
    picture.resize((971, 607), Image.Resampling.LANCZOS).save(little)
    ours, scaled = (picture_of(flux, images=(pinned(path),)) for path in (large, little))
    assert torch.equal(ours, scaled)


def test_a_reference_that_cannot_serve_is_named(flux, tmp_path):
    path = tmp_path / "narrow.png"
    Image.new("RGB", (1000, 70), "red").save(path)
    with pytest.raises(MediaError, match=r"narrow\.png.*ratio"):
        picture_of(flux, images=(pinned(path),))
    with pytest.raises(MediaError, match=r"missing\.png"):
        picture_of(flux, images=(pinned(tmp_path / "missing.png"),))


@pytest.fixture(scope="module")
def tiny():
    return ModelFiles(locate_model("tiny"))


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"width": 100}, "'width': 100 is not a multiple of 16.*nearest: 96 and 112"),
        ({"height": 8}, "'height': 8 is not a multiple of 16.*nearest: 16"),
        ({"num_frames": 9}, "'num_frames': 9; a single image has 1 frame"),
        ({"images": 4}, "'images': 4 reference images.*at most 3"),
        ({"images": 1, "strength": 0.5}, r"'images\.0\.strength': 0\.5 has no effect"),
        ({"enhance": True}, "'enhance'"),
    ],
)
def test_what_a_single_image_cannot_do_is_said(flux, tiny, picture, fields, said):
    count, strength = fields.pop("images", 0), fields.pop("strength", 1.0)
    request = single(images=(pinned(picture, strength=strength),) * count, **fields)
    assert len(SingleImage.faults(request, tiny)) == 1
    with pytest.raises(ItemError, match=said):
        pipeline(flux)(request)


def test_requests_and_folders_in_order_have_no_faults(flux, tiny, picture):
    assert SingleImage.faults(single(images=(pinned(picture),) * 3), tiny) == []
    assert faults_of(flux, guidance=3) == ""


def test_a_folder_that_is_none_is_named(tmp_path):
    for folder in (tmp_path / "missing", "black-forest-labs/FLUX.2-klein-4B"):
        assert "not a folder on this machine" in faults_of(folder)
    assert "model_index.json" in faults_of(tmp_path)
    with pytest.raises(CheckpointError, match=r"model_index\.json"):
        picture_of(tmp_path)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("vae/diffusion_pytorch_model.bin", "can run code"),
        ("transformer/diffusers.py", "can run code"),
        ("text_encoder/extra.PT", "can run code"),
    ],
)
def test_files_that_can_run_code_are_refused(copied, name, said):
    (copied / name).write_bytes(b"")
    assert name in faults_of(copied)
    with pytest.raises(CheckpointError, match=said):
        picture_of(copied)


@pytest.mark.parametrize(
    "changes",
    [
        {"_class_name": "StableDiffusionPipeline"},
        {"_class_name": ["my_pipeline", "MyPipeline"]},
        {"scheduler": ["os", "system"]},
        {"transformer": ["diffusers", "FluxTransformer2DModel"]},
    ],
)
def test_other_classes_are_refused(copied, changes):
    rewrite(copied / "model_index.json", **changes)
    assert "model_index.json" in faults_of(copied)
    with pytest.raises(CheckpointError, match=r"expected|one of"):
        picture_of(copied)


def test_weights_that_are_not_there_are_named(copied):
    (copied / "vae" / "diffusion_pytorch_model.safetensors").unlink()
    index = copied / "transformer" / "diffusion_pytorch_model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"a": "part-2.safetensors"}}))
    assert "vae: no weights" in faults_of(copied)
    assert "part-2.safetensors is not there" in faults_of(copied)


@pytest.mark.parametrize("part", ["transformer", "vae", "text_encoder"])
def test_a_missing_weight_is_not_made_up(copied, part):
    (path,) = (copied / part).glob("*.safetensors")
    weights = load_file(path)
    name = next(name for name, tensor in weights.items() if tensor.dim() > 1)
    del weights[name]
    save_file(weights, path, metadata={"format": "pt"})
    with pytest.raises(CheckpointError, match=f"1 weights are missing, such as {name}"):
        picture_of(copied)


def test_damaged_weights_are_an_error_of_the_model(copied):
    (path,) = (copied / "text_encoder").glob("*.safetensors")
    path.write_bytes(b"damaged")
    with pytest.raises(CheckpointError, match="image model"):
        picture_of(copied)


def test_guidance_of_a_distilled_model_is_a_fault(copied):
    rewrite(copied / "model_index.json", is_distilled=True)
    assert "guidance 3: no effect" in faults_of(copied, guidance=3)


def test_without_diffusers_the_extra_is_named(copied, monkeypatch):
    monkeypatch.setitem(sys.modules, "diffusers", None)
    assert "pip install 'rayreel[image]'" in faults_of(copied)
    with pytest.raises(SpecError, match=r"pip install 'rayreel\[image\]'"):
        picture_of(copied)


def test_a_model_without_an_image_model_says_so(ledger):
    with pytest.raises(CheckpointError, match="names no image_model"):
        SingleImage(ledger)(single())


def test_weights_settings_and_templates_are_its_identity(flux, copied):
    def identity(folder, **fields: Any) -> str:
        return ModelFiles(model(folder, **fields)).fingerprint(("image_model",))

    usual = identity(flux)
    assert identity(copied) == usual
    changed = {usual, identity(flux, steps=3), identity(flux, guidance=2)}
    (copied / "tokenizer" / "chat_template.jinja").write_text("{{ messages[0].content }}")
    changed.add(identity(copied))
    write_tiny_flux(copied, distilled=True)
    changed.add(identity(copied))
    assert len(changed) == 5
    with pytest.raises(CheckpointError, match="not a folder"):
        identity(flux / "missing")


def test_its_folder_starts_at_the_spec(tmp_path):
    spec = tmp_path / "model.yaml"
    spec.write_text(
        "model: {checkpoint: ltx.safetensors, gemma: gemma, image_model: {folder: flux}}"
    )
    located = read_model(str(spec)).model
    assert isinstance(located, ModelSpec)
    assert located.image_model == ImageModelSpec(folder=str(tmp_path / "flux"))


def test_it_is_the_pipeline_named_image():
    assert PIPELINE_CLASSES["image"] is SingleImage
