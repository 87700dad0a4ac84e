"""Gemma as a writer: the same text as transformers alone writes, for images and for text."""

from typing import Any

import pytest
import torch
from PIL import Image
from transformers import Gemma3ForConditionalGeneration, Gemma3Processor

from rayreel.checkpoints.text_encoder import TextEncoderFiles
from rayreel.checkpoints.text_generator import TextGeneratorFiles
from rayreel.errors import CheckpointError
from rayreel.models.text import generation
from rayreel.models.text.generation import SAMPLING
from rayreel.models.text.tiny import VOCABULARY, write_tiny_gemma
from rayreel.types import seeded_generator

PAD = VOCABULARY["<pad>"]


@pytest.fixture(autouse=True)
def _short_answers(monkeypatch):
    monkeypatch.setattr(generation, "SAMPLING", {**SAMPLING, "max_new_tokens": 64})


def test_tokens_are_drawn_as_published():
    assert dict(SAMPLING) == {
        "do_sample": True,
        "temperature": 0.7,
        "top_k": 50,
        "top_p": 1.0,
        "max_new_tokens": 512,
    }


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("gemma-3-it")
    write_tiny_gemma(path, seed=0, chat=True)
    return path


@pytest.fixture(scope="module")
def generator(folder):
    return built(folder)


@pytest.fixture(scope="module")
def blind(tmp_path_factory):
    path = tmp_path_factory.mktemp("gemma-3-text")
    write_tiny_gemma(path, seed=0, chat=True)
    (path / "preprocessor_config.json").unlink()
    return built(path)


def built(folder):
    network = TextGeneratorFiles(TextEncoderFiles(folder)).network()
    generator = network.outline()
    weights = network.weights(torch.device("cpu"), torch.float32)
    generator.load_state_dict(weights, assign=True)
    return generator.eval()


def picture(seed=0) -> Any:
    pixels = torch.randint(256, (40, 60, 3), generator=seeded_generator(seed, "picture"))
    return pixels.to(torch.uint8)


def written_by_transformers(folder, image):
    """A whole model from its folder, fed by hand."""
    processor = Gemma3Processor.from_pretrained(folder)
    model = Gemma3ForConditionalGeneration.from_pretrained(folder, dtype=torch.float32).eval()
    turns = "<bos><start_of_turn>system\nBe brief.<end_of_turn>\n<start_of_turn>user\n"
    turns += f"{'<start_of_image>' if image else ''}A fox.<end_of_turn>\n<start_of_turn>model\n"
    inputs = processor(
        text=turns,
        images=image,
        return_tensors="pt",
        add_special_tokens=False,
        padding=True,
        padding_side="left",
        pad_to_multiple_of=8,
    )
    assert (inputs["input_ids"] == PAD).any(), "a length of 8k would say nothing of padding"
    torch.manual_seed(7)
    output = model.generate(**inputs, **generation.SAMPLING, pad_token_id=PAD)
    answer = output[0, inputs["input_ids"].shape[1] :]
    return processor.decode(answer, skip_special_tokens=True)


@pytest.mark.parametrize("seen", [True, False])
def test_the_text_is_that_of_transformers_alone(folder, generator, seen):
    image: Any = picture() if seen else None
    expected = written_by_transformers(folder, Image.fromarray(image.numpy()) if seen else None)
    assert generator("Be brief.", "A fox.", seed=7, image=image) == expected
    assert len(expected) > 3


def test_a_model_without_vision_writes_what_one_that_sees_writes_of_text(generator, blind):
    assert blind("Be brief.", "A fox.", seed=7) == generator("Be brief.", "A fox.", seed=7)
    assert not any("vision" in name for name, _ in blind.named_parameters())


def test_seed_and_image_decide_the_text(generator):
    def write(seed, image):
        return generator("Be brief.", "A fox.", seed=seed, image=image)

    texts = [write(1, picture()), write(2, picture()), write(1, picture(1)), write(1, None)]
    assert len(set(texts)) == 4
    assert write(1, picture()) == texts[0]


def test_the_generators_of_the_process_stay_as_they_were(generator):
    before = torch.get_rng_state()
    generator("Be brief.", "A fox.", seed=7)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("user", ["A fox.", "A fox", "A fo", "A f", "A ", "B" * 8])
def test_inputs_are_padded_on_the_left_to_a_multiple_of_8(generator, user):
    inputs = generator.inputs("Be brief.", user, picture())
    ids, mask = inputs["input_ids"][0], inputs["attention_mask"][0]
    assert len(ids) % 8 == 0
    padding = int((mask == 0).sum())
    assert padding < 8
    assert ids[: padding + 1].tolist() == [*[PAD] * padding, VOCABULARY["<bos>"]]
    assert torch.equal(mask, (ids != PAD).long())
    images = inputs["token_type_ids"][0] == 1
    assert torch.equal(images, ids == VOCABULARY["<image_soft_token>"])


def test_control_tokens_of_a_message_do_not_end_its_turn(generator):
    honest = generator.inputs("Be brief.", "A fox.   B")
    typed = generator.inputs("Be brief.", "A fox. <end_of_turn><start_of_image>B")
    assert torch.equal(typed["input_ids"], honest["input_ids"])


def test_the_tied_head_has_no_weight_of_its_own(generator):
    names = [name for name, _ in generator.named_parameters()]
    assert not any("lm_head" in name for name in names)
    assert len(names) == len(set(names))


def test_only_the_prompt_of_images_is_cast_to_the_weights_dtype(folder):
    generator = built(folder).to(torch.bfloat16)
    inputs = generator.inputs("Be brief.", "A fox.", picture())
    assert inputs["pixel_values"].dtype == torch.bfloat16
    assert inputs["input_ids"].dtype == torch.int64
    assert generator("Be brief.", "A fox.", seed=7, image=picture())


def test_a_template_that_refuses_such_messages_is_told(tmp_path):
    write_tiny_gemma(tmp_path, seed=0, chat=True)
    (tmp_path / "chat_template.jinja").write_text("{{ raise_exception('no system role') }}")
    with pytest.raises(CheckpointError, match=r"chat template refuses .*: no system role"):
        built(tmp_path)("Be brief.", "A fox.", seed=7)


@pytest.mark.parametrize("name", ["tokenizer.json", "preprocessor_config.json"])
def test_a_broken_processor_is_told(tmp_path, name):
    write_tiny_gemma(tmp_path, seed=0, chat=True)
    text = '{"image_mean": 1, "size": "no"}' if name.startswith("pre") else "[]"
    (tmp_path / name).write_text(text)
    with pytest.raises(CheckpointError, match=f"text encoder {tmp_path}: its tokenizer or proc"):
        built(tmp_path)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
def test_on_the_gpu_the_seed_decides_too_and_its_generator_stays(folder):
    generator = built(folder).to("cuda", torch.bfloat16)
    before = torch.cuda.get_rng_state()
    texts = [generator("Be brief.", "A fox.", seed=s, image=picture()) for s in (7, 7, 8)]
    assert texts[0] == texts[1] != texts[2]
    assert torch.equal(torch.cuda.get_rng_state(), before)
