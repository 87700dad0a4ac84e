"""The text path on tiny models: values of the specification, padding, batches, broken folders."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoTokenizer

from rayreel.checkpoints.builder import build
from rayreel.checkpoints.text_encoder import TextEncoderFiles
from rayreel.config.model import ConnectorConfig, TextConfig
from rayreel.errors import CheckpointError
from rayreel.models.text.connector import Connector, TextConnectors, padded, replace_padding
from rayreel.models.text.encoder import TextEncoder
from rayreel.models.text.features import FeatureExtractor, normalize_per_layer, normalize_per_token
from rayreel.models.text.tiny import write_tiny_gemma
from rayreel.models.text.tokenizer import BOS_ID, PAD_ID, PromptTokenizer
from tests.checkpoints.packed import loaded

CPU = torch.device("cpu")
PROMPTS = ["A red fox.", "", "  Rain, 雨 и 🌧\non a roof "]
CONFIG = TextConfig(
    use_audio_video_cross_attention=True,
    connector_num_attention_heads=2,
    connector_attention_head_dim=8,
    audio_connector_attention_head_dim=4,
    connector_positional_embedding_max_pos=(4096,),
    frequencies_precision="float64",
    caption_proj_before_connector=True,
    caption_projection_first_linear=False,
    caption_proj_input_norm=False,
    caption_projection_second_linear=False,
)
V1_CONFIG = TextConfig(
    use_audio_video_cross_attention=True,
    connector_num_attention_heads=2,
    connector_attention_head_dim=8,
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("gemma")
    write_tiny_gemma(path, seed=0)
    return path


@pytest.fixture(scope="module")
def gemma(folder):
    return load_gemma(folder, torch.float32)


def load_gemma(folder, dtype):
    return loaded(TextEncoderFiles(folder), device=CPU, dtype=dtype)


def random_encoder(gemma, folder, config=CONFIG, length=128) -> TextEncoder:
    torch.manual_seed(0)
    extractor = FeatureExtractor(
        config, hidden_size=gemma.hidden_size, num_hidden_states=gemma.num_hidden_states
    )
    return TextEncoder(
        PromptTokenizer(folder, length=length), gemma, extractor.requires_grad_(False)
    )


def random_connectors(config=CONFIG) -> TextConnectors:
    torch.manual_seed(1)
    return TextConnectors(config).requires_grad_(False)


def edit_json(file: Path, **changes) -> None:
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


class TestTokenizer:
    def test_pads_on_the_left_and_masks_the_padding(self, folder):
        input_ids, mask = PromptTokenizer(folder, length=16)(["fox", "snow"])
        assert mask.sum(dim=1).tolist() == [4, 5]
        assert (input_ids[:, 0] == PAD_ID).all()
        assert input_ids[0, -4] == input_ids[1, -5] == BOS_ID
        assert torch.equal(mask, mask.sort(dim=1).values)

    def test_empty_prompt_is_a_lone_bos(self, folder):
        input_ids, mask = PromptTokenizer(folder)([" \n"])
        assert input_ids.shape == (1, 1024)
        assert input_ids[mask.bool()].tolist() == [BOS_ID]

    def test_long_prompt_keeps_its_beginning(self, folder):
        (full,), _ = PromptTokenizer(folder, length=9)(["abcdefgh"])
        (cut,), mask = PromptTokenizer(folder, length=4)(["abcdefgh"])
        assert torch.equal(cut, full[:4])
        assert mask.all()

    def test_bos_is_added_where_the_tokenizer_adds_none(self, folder, tmp_path):
        (tmp_path / "tokenizer.json").write_text((folder / "tokenizer.json").read_text())
        edit_json(tmp_path / "tokenizer.json", post_processor=None)
        expected = PromptTokenizer(folder, length=8)(["fox", "too long a prompt"])
        actual = PromptTokenizer(tmp_path, length=8)(["fox", "too long a prompt"])
        assert torch.equal(actual[0], expected[0])
        assert torch.equal(actual[1], expected[1])

    def test_typed_bos_is_kept_beside_the_added_one(self, folder):
        input_ids, _ = PromptTokenizer(folder, length=4)(["<bos>a"])
        assert (input_ids == BOS_ID).sum() == 2

    @pytest.mark.parametrize("text", [None, "{}"])
    def test_missing_or_broken_file_is_a_checkpoint_error(self, tmp_path, text):
        if text is not None:
            (tmp_path / "tokenizer.json").write_text(text)
        with pytest.raises(CheckpointError, match=r"tokenizer\.json"):
            PromptTokenizer(tmp_path)


class TestGemma:
    def test_weights_of_the_file_arrive_in_the_wanted_dtype(self, folder, gemma):
        stored = load_file(folder / "model.safetensors")
        prefix = "language_model.model."
        language = {k.removeprefix(prefix): v for k, v in stored.items() if k.startswith(prefix)}
        loaded = gemma.model.state_dict()
        assert loaded.keys() == language.keys()
        assert all(torch.equal(loaded[name], language[name].float()) for name in language)

    def test_last_hidden_state_has_passed_the_final_norm(self, gemma):
        ids = torch.tensor([[BOS_ID, 300, 301, 302]])
        mask = torch.ones_like(ids)
        states = gemma(ids, mask)
        assert states.shape == (1, 4, gemma.hidden_size, gemma.num_hidden_states)
        assert torch.equal(states[..., -1], gemma.model(ids, mask).last_hidden_state)

    def test_padding_does_not_change_valid_positions(self, gemma, folder):
        short, long = (PromptTokenizer(folder, length=n)(["red fox"]) for n in (16, 48))
        torch.testing.assert_close(
            gemma(*long)[:, -8:], gemma(*short)[:, -8:], rtol=1e-4, atol=1e-4
        )


class TestFeatures:
    """Two layers of width 2; three tokens, the first one padding that holds NaN."""

    states = torch.tensor(
        [[[[torch.nan] * 2] * 2, [[1.0, 10.0], [2.0, 20.0]], [[3.0, 30.0], [5.0, -40.0]]]]
    )
    mask = torch.tensor([[0, 1, 1]])

    @pytest.mark.parametrize(
        ("normalize", "rows"),
        [
            (
                normalize_per_layer,
                [
                    [0, 0, 0, 0],
                    [-3.499998, 0.571429, -1.499998, 1.714286],
                    [0.500001, 2.857143, 4.5, -5.142857],
                ],
            ),
            (
                normalize_per_token,
                [
                    [0, 0, 0, 0],
                    [0.632455, 0.632456, 1.264911, 1.264911],
                    [0.727607, 0.848528, 1.212678, -1.131371],
                ],
            ),
        ],
    )
    def test_rows_are_those_of_the_specification(self, normalize, rows):
        actual = normalize(self.states, self.mask).flatten(2)
        torch.testing.assert_close(actual[0], torch.tensor(rows), rtol=0, atol=2e-6)

    @pytest.mark.parametrize("normalize", [normalize_per_layer, normalize_per_token])
    def test_bfloat16_stays_bfloat16(self, normalize):
        actual = normalize(self.states.bfloat16(), self.mask)
        assert actual.dtype == torch.bfloat16
        expected = normalize(self.states, self.mask)
        torch.testing.assert_close(actual.float(), expected, rtol=0.02, atol=0.02)


def filled_connector(*, gated: bool) -> Connector:
    """The tiny connector of the specification with its weights: a sine over rank and place."""
    config = ConnectorConfig(
        num_attention_heads=2,
        attention_head_dim=8,
        num_layers=2,
        max_pos=4096,
        num_registers=4,
        gated=gated,
    )
    tensors = {}
    for rank, (name, empty) in enumerate(sorted(Connector(config).state_dict().items())):
        place = torch.arange(empty.numel(), dtype=torch.float64)
        fill = (0.3 * torch.sin(0.7 * place + 1.3 * rank + 0.1)).float().reshape(empty.shape)
        tensors[name] = 1 + fill if name.endswith(("q_norm.weight", "k_norm.weight")) else fill
    return build(lambda: Connector(config), tensors)


class TestConnector:
    def test_registers_fill_by_absolute_position(self):
        features = torch.arange(8.0).reshape(1, 8, 1)
        registers = torch.tensor([[100.0], [101.0], [102.0], [103.0]])
        mask = torch.tensor([[0, 0, 0, 0, 0, 1, 1, 1]])
        filled = replace_padding(features, mask, registers)
        assert filled.flatten().tolist() == [5, 6, 7, 103, 100, 101, 102, 103]

    def test_each_row_of_a_batch_is_partitioned_by_its_own_mask(self):
        features = torch.arange(8.0).reshape(2, 4, 1)
        registers = torch.tensor([[-1.0], [-2.0]])
        mask = torch.tensor([[1, 0, 1, 0], [0, 1, 1, 1]])
        filled = replace_padding(features, mask, registers)
        assert filled[..., 0].tolist() == [[0, 2, -1, -2], [5, 6, 7, -2]]

    def test_length_that_registers_cannot_fill_is_refused(self):
        with pytest.raises(ValueError, match="multiple of 4"):
            replace_padding(torch.zeros(1, 6, 2), torch.ones(1, 6), torch.zeros(4, 2))

    @pytest.mark.parametrize(
        ("gated", "first", "fourth", "last", "total"),
        [
            (
                False,
                [-1.97830, -0.41855, 0.97519, 0.84802],
                [-1.64913, 0.07559, 1.58780, 1.20471],
                [-1.61806, 0.16740, 1.62155, 1.14321],
                110.4257,
            ),
            (
                True,
                [-1.68820, -0.08420, 0.45029, -0.20295],
                [-1.09994, 0.61104, 1.04394, 0.24082],
                [-0.96573, 0.67992, 0.96068, 0.16567],
                104.7367,
            ),
        ],
    )
    def test_output_is_that_of_the_specification(self, gated, first, fourth, last, total):
        features = torch.sin(0.9 * torch.arange(8.0)[:, None] + 0.11 * torch.arange(16.0))
        mask = torch.tensor([[0, 0, 0, 0, 0, 1, 1, 1]])
        (out,) = filled_connector(gated=gated)(features[None], mask)
        expected = torch.tensor([first, fourth, last])
        torch.testing.assert_close(out[[0, 3, 7], :4], expected, rtol=0, atol=2e-5)
        assert out.abs().sum().item() == pytest.approx(total, abs=1e-3)


class TestEncoder:
    def test_batch_equals_single_prompts(self, folder, gemma):
        encoder, connectors = random_encoder(gemma, folder), random_connectors()
        together = encoder(PROMPTS)
        contexts = connectors(together)
        for prompt, features, context in zip(PROMPTS, together, contexts, strict=True):
            [alone] = encoder([prompt])
            assert_near(features, alone)
            assert_near(context, connectors([alone])[0])

    def test_features_are_those_of_the_tokens_alone(self, folder, gemma):
        encoder = random_encoder(gemma, folder)
        _, masks = encoder.tokenizer(PROMPTS)
        for features, mask in zip(encoder(PROMPTS), masks, strict=True):
            assert features.video.shape == (mask.sum(), CONFIG.video.width)
            assert features.audio.shape == (mask.sum(), CONFIG.audio.width)
            assert features.length == 128
            assert features.video.untyped_storage().nbytes() == features.video.nbytes

    def test_one_projection_for_both_streams_is_one_tensor(self, folder, gemma):
        [features] = random_encoder(gemma, folder, V1_CONFIG)(PROMPTS[:1])
        assert features.audio is features.video
        moved = features.to(CPU, torch.bfloat16)
        assert moved.audio is moved.video

    def test_contexts_have_the_width_of_each_stream_and_follow_the_prompt(self, folder, gemma):
        fox, nothing, _ = random_connectors()(random_encoder(gemma, folder)(PROMPTS))
        assert fox.video.shape == (128, CONFIG.video.width)
        assert fox.audio.shape == (128, CONFIG.audio.width)
        assert not torch.allclose(fox.video, nothing.video, atol=1e-2)

    @pytest.mark.parametrize("config", [CONFIG, V1_CONFIG])
    def test_features_and_contexts_are_those_of_the_whole_padding(self, folder, gemma, config):
        encoder, connectors = random_encoder(gemma, folder, config), random_connectors(config)
        ids, mask = encoder.tokenizer(PROMPTS)
        video, _ = encoder.feature_extractor(gemma(ids, mask), mask)
        whole = connectors.video_connector(video, mask)
        trimmed = encoder(PROMPTS)
        for row, (features, context) in enumerate(zip(trimmed, connectors(trimmed), strict=True)):
            expected = video[row, mask[row].bool()]
            torch.testing.assert_close(features.video, expected, rtol=1e-5, atol=1e-5)
            torch.testing.assert_close(context.video, whole[row], rtol=1e-4, atol=1e-5)

    @pytest.mark.parametrize(
        ("prompts", "lengths"),
        [(["", "fox"], [32]), (["x" * 40], [48]), (["x" * 200], [128]), (["", "x" * 60], [32, 64])],
    )
    def test_most_of_the_padding_is_not_computed(self, folder, gemma, prompts, lengths):
        encoder, seen = random_encoder(gemma, folder), []
        handle = gemma.register_forward_hook(lambda _, __, states: seen.append(states.shape[1]))
        features = encoder(prompts)
        handle.remove()
        assert seen == lengths
        assert [one.length for one in features] == [128] * len(prompts)

    def test_what_is_beside_a_prompt_does_not_change_a_bit_of_it(self, folder, gemma):
        encoder = random_encoder(gemma, folder)
        prompts = [*PROMPTS, "x" * 40, "a fox", "y" * 100]
        for together, prompt in zip(encoder(prompts), prompts, strict=True):
            [alone] = encoder([prompt])
            assert torch.equal(together.video, alone.video)
            assert torch.equal(together.audio, alone.audio)

    @pytest.mark.parametrize("version", ["v1", "v2"])
    def test_without_an_audio_stream_the_audio_context_is_empty(self, folder, gemma, version):
        both = CONFIG if version == "v2" else V1_CONFIG
        video_only = both.model_copy(update={"use_audio_video_cross_attention": None})
        halves = [
            (random_encoder(gemma, folder, c), random_connectors(c)) for c in (both, video_only)
        ]
        for whole, part in zip(*halves, strict=True):
            weights = {n: w for n, w in whole.state_dict().items() if "audio_" not in n}
            part.load_state_dict(weights, strict=True)
        [expected], [context] = (connect(encode(PROMPTS[:1])) for encode, connect in halves)
        assert torch.equal(context.video, expected.video)
        assert context.audio.shape == (128, 0)

    def test_bfloat16_agrees_with_float32_within_its_rounding(self, folder, gemma):
        [exact] = random_connectors()(random_encoder(gemma, folder)(PROMPTS[:1]))
        rounded = random_encoder(load_gemma(folder, torch.bfloat16), folder).bfloat16()
        [context] = random_connectors().bfloat16()(rounded(PROMPTS[:1]))
        for actual, expected in ((context.video, exact.video), (context.audio, exact.audio)):
            assert actual.dtype == torch.bfloat16
            assert (actual.float() - expected).abs().mean() < 0.02


def assert_near(actual, expected):
    torch.testing.assert_close(actual.video, expected.video, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(actual.audio, expected.audio, rtol=1e-4, atol=1e-5)


def test_prompts_are_padded_in_front():
    batch, mask = padded([torch.ones(2, 1), torch.full((4, 1), 2.0)], 4)
    assert batch[..., 0].tolist() == [[0, 0, 1, 1], [2, 2, 2, 2]]
    assert mask.tolist() == [[0, 0, 1, 1], [1, 1, 1, 1]]


class TestTinyGemma:
    def test_same_seed_writes_the_same_bytes(self, folder, tmp_path):
        write_tiny_gemma(tmp_path, seed=0)
        assert {f.name for f in tmp_path.iterdir()} == {f.name for f in folder.iterdir()}
        for file in tmp_path.iterdir():
            assert file.read_bytes() == (folder / file.name).read_bytes()

    def test_other_seed_writes_other_weights(self, folder, tmp_path):
        write_tiny_gemma(tmp_path, seed=1)
        name = "language_model.model.embed_tokens.weight"
        ours, theirs = (load_file(p / "model.safetensors")[name] for p in (tmp_path, folder))
        assert not torch.equal(ours, theirs)

    def test_weights_have_the_names_of_the_official_layout(self, folder):
        assert load_file(folder / "model.safetensors").keys() >= {
            "language_model.model.embed_tokens.weight",
            "vision_tower.vision_model.post_layernorm.weight",
            "multi_modal_projector.mm_soft_emb_norm.weight",
        }

    @pytest.mark.parametrize("prompt", PROMPTS)
    def test_transformers_reads_the_tokenizer_alike(self, folder, prompt):
        input_ids, mask = PromptTokenizer(folder)([prompt])
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
        ids = input_ids[mask.bool()].tolist()
        assert ids == tokenizer(prompt.strip()).input_ids
        assert tokenizer.decode(ids, skip_special_tokens=True) == prompt.strip()
