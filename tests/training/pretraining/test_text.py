"""The text encoder learns what captions say, and is read as it was learnt."""

import copy
import json
import re
from pathlib import Path
from random import Random

import pytest
import torch
import yaml
from safetensors.torch import save_file
from transformers import Gemma3ForConditionalGeneration

from rayreel.checkpoints.text_encoder import TextEncoderFiles
from rayreel.config.jobs import ModelSpec
from rayreel.config.pretrain import PretrainSpec, StretchSpec
from rayreel.data.storage import Storage
from rayreel.pipelines import phases
from rayreel.pipelines.ledger import ModelLedger
from rayreel.training.pretraining.meaning import Meaning, SaidThing, classes, understood
from rayreel.training.pretraining.parts import make_part
from rayreel.training.pretraining.reader import meanings, misread
from rayreel.training.pretraining.text import TextPart
from rayreel.training.pretraining.wording import captions, learnt
from rayreel.world import words
from rayreel.world.scene import COLOURS, MOTIONS, SHAPES, is_held_out
from tests.pipelines.small import DEVICE
from tests.training.pretraining.strangers import STRANGERS

NANO = Path(__file__).parents[3] / "manifests" / "nano"
ARCHITECTURE = "architecture.yaml"
SMALL = {
    "transformer": {
        "use_audio_video_cross_attention": True,
        "connector_num_attention_heads": 2,
        "connector_attention_head_dim": 16,
        "connector_num_layers": 1,
        "connector_positional_embedding_max_pos": [4096],
        "frequencies_precision": "float64",
        "rope_type": "split",
    },
    "gemma": {
        "vocab_size": 500,
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "head_dim": 16,
    },
}
BATCH = StretchSpec(steps=1, batch_size=8)
TEXTS = ["A red ball bounces.", "", "two words, 雨 and \U0001f327", "red " * 200]


@pytest.fixture(scope="module")
def part():
    return TextPart(SMALL, seed=0)


@pytest.fixture(scope="module")
def run(part, tmp_path_factory):
    """A run directory with what was learnt, and the part rounded as its files are."""
    folder = tmp_path_factory.mktemp("run")
    part.write(Storage(folder))
    with torch.no_grad():
        for weight in part.network.parameters():
            weight.copy_(weight.to(torch.bfloat16))
    return folder


def drawn(n, seed=0):
    rng = Random(seed)
    return [learnt(rng) for _ in range(n)]


def scores_of(said):
    """Scores that are certain of what is said."""
    found = classes(said)
    width = {"shape": len(SHAPES), "size": 4, "motion": len(MOTIONS), "background": 5, "count": 3}
    scores = {
        name: 50 * torch.nn.functional.one_hot(getattr(found, name).clamp(min=0), size).float()
        for name, size in width.items()
    }
    return scores | {name: 100 * getattr(found, name) - 50 for name in ("present", "sounds")}


def test_texts_are_the_same_for_the_same_seed_and_never_of_what_is_held_out():
    texts = drawn(2000)
    assert texts == drawn(2000)
    things = {(it.colour, it.shape, it.motion) for _, said in texts for it in said.things}
    assert not any(is_held_out(*it) for it in things)
    assert {colour for colour, _, _ in things} == set(COLOURS)
    assert {shape for _, shape, _ in things} == set(SHAPES)


def test_captions_of_held_out_combinations_have_no_others():
    for _, said in captions(200, seed=0, split="held-out"):
        assert all(is_held_out(it.colour, it.shape, it.motion) for it in said.things)


def test_a_caption_says_what_its_meaning_has_and_not_what_it_leaves_out():
    sizes = "|".join(word for options in words.SIZE_WORDS.values() for word in options)
    for text, said in captions(500, seed=0, split="train"):
        assert all(it.colour in text.lower() for it in said.things)
        named = re.search(rf"\b({sizes})\b(?!-pitched)", text, re.IGNORECASE)
        assert bool(named) == all(it.size for it in said.things), text
        assert bool(re.search("background|backdrop", text, re.IGNORECASE)) == bool(said.background)


def test_certain_scores_are_read_as_what_was_said():
    said = [meaning for _, meaning in drawn(200)]
    read = meanings(scores_of(said))
    for one, other in zip(said, read, strict=True):
        assert set(one.things) == set(other.things)
        assert (one.background, one.sounds) == (other.background, other.sounds)
    assert misread(scores_of(said), classes(said)) < 1e-6


def test_a_loss_of_texts_that_say_nothing_is_a_number():
    silent = [Meaning()] * 3
    assert misread(scores_of(silent), classes(silent)).isfinite()


def test_what_was_not_seen_was_not_understood_and_what_is_too_much_is_wrong():
    red = SaidThing(colour="red", shape="star", motion="left", size="small")
    blue = SaidThing(colour="blue", shape="star", motion="left")
    said = [Meaning(things=(red, blue)), Meaning(background="white")]
    read = [Meaning(things=(red,)), Meaning(things=(blue,), background="white")]
    found = understood(said, read)
    assert found["colours"] == 0
    assert found["shape"] == found["size"] == found["motion"] == 0.5
    assert found["background"] == found["sounds"] == 1


def test_a_step_depends_on_its_number_alone(part):
    first, other, again = (float(part.losses(step, BATCH)["loss"].detach()) for step in (3, 4, 3))
    assert first == again != other


def test_learning_makes_the_loss_of_a_batch_small(part):
    part = copy.deepcopy(part)
    optimizer = torch.optim.Adam(part.network.parameters(), lr=3e-3)
    losses = []
    for _ in range(40):
        optimizer.zero_grad()
        loss = part.losses(0, BATCH)["loss"]
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < losses[0] / 4
    assert all(one.grad is not None for one in part.network.parameters())


def test_any_text_is_tokens_and_comes_back_in_small_letters(part):
    for text in ("BLUE Box,\n 雨 naïve", "a fox's den; 50% \\o/", "x" * 90):
        ids = part.learned.encode(text).ids
        assert part.learned.decode(ids).strip() == " ".join(text.lower().split())


def test_every_text_of_a_stranger_is_short_enough(part):
    assert len(STRANGERS) == 50
    _, mask = part.tokenizer(list(STRANGERS))
    assert int(mask.sum(dim=1).max()) < 128


def test_the_folder_is_one_that_transformers_reads(run):
    files = TextEncoderFiles(run / "gemma")
    files.check()
    assert files.prompt_tokens == 128
    input_ids, mask = files.tokenizer()(TEXTS[:1])
    theirs = Gemma3ForConditionalGeneration.from_pretrained(run / "gemma", dtype=torch.float32)
    with torch.no_grad():
        expected = theirs.model.language_model(
            input_ids=input_ids, attention_mask=mask, output_hidden_states=True, use_cache=False
        ).hidden_states
    gemma = files.outline()
    gemma.load_state_dict(files.weights(torch.device("cpu"), torch.float32), assign=True)
    found = gemma(input_ids, mask)[mask.bool()]
    torch.testing.assert_close(found, torch.stack(expected, dim=-1)[mask.bool()])


def test_prompts_are_embedded_as_in_training(part, run):
    """A prompt goes through the files, the language model, the store's features, connectors."""
    dit = run / "dit.safetensors"
    config = json.dumps({"transformer": SMALL["transformer"]})
    save_file({"model.diffusion_model.x": torch.ones(1)}, dit, {"config": config})
    spec = ModelSpec(
        transformer=str(dit),
        gemma=str(run / "gemma"),
        text_projection=str(run / "text.safetensors"),
    )
    ledger = ModelLedger(spec, DEVICE)
    found = phases.contexts(ledger, phases.features(ledger, TEXTS))
    with torch.no_grad():
        expected = part.embed(TEXTS)
    for row, context in enumerate(found):
        assert context.video.shape == (128, 32)
        torch.testing.assert_close(context.video, expected.video[row], atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(context.audio, expected.audio[row], atol=1e-4, rtol=1e-4)


def test_padding_that_is_left_out_changes_nothing(part):
    with torch.no_grad():
        alone, beside = part.embed(TEXTS[:1]), part.embed(TEXTS)
    torch.testing.assert_close(alone.video[0], beside.video[0], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(alone.audio[0], beside.audio[0], atol=1e-5, rtol=1e-5)


def test_the_nano_model_reads_with_little():
    read = {name: yaml.safe_load((NANO / name).read_text()) for name in ("text.yaml", ARCHITECTURE)}
    spec = PretrainSpec.model_validate(read["text.yaml"])
    assert spec.architecture == ARCHITECTURE
    part = make_part(spec, read[ARCHITECTURE])
    assert isinstance(part, TextPart)
    weights = (*part.gemma.parameters(), *part.processor.parameters())
    assert sum(one.numel() for one in weights) < 1_250_000


def test_what_is_understood_is_written_beside_the_weights(run):
    found = json.loads((run / "understood.json").read_text())
    assert set(found) == {"video", "audio"}
    assert set(found["audio"]) == {"colours", "shape", "size", "motion", "background", "sounds"}
    assert all(0 <= share <= 1 for share in found["video"].values())
