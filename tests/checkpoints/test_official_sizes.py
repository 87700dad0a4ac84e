"""Networks of the published configurations: how many tensors and parameters, and bytes in files."""

import pytest
import torch

from tests.checkpoints.published import NETWORKS, shapes
from tests.official import OFFICIAL

STATISTICS = 2 * 128


def size(generation, *networks):
    """Tensors and parameters of networks, each counted on its own."""
    found = [shape for network in networks for shape in shapes(generation, network).values()]
    return len(found), sum(torch.Size(shape).numel() for shape in found)


AUDIO = {"audio encoder": (46, 21_333_264), "audio decoder": (58, 31_915_394)}
TEMPORAL = {"temporal x2": (72, 130_968_192)}
SINCE_2_3 = AUDIO | {
    "video connector": (129, 1_612_546_304),
    "audio connector": (129, 403_620_096),
    "text projection": (4, 188_160 * 4096 + 4096 + 188_160 * 2048 + 2048),
    "video encoder": (86, 318_937_153),
    "video decoder": (86, 407_169_328),
    "vocoder": (1227, 129_085_032),
    "spatial x2": (72, 497_867_904),
}
SIZES = {
    "2.0": AUDIO
    | TEMPORAL
    | {
        "transformer": (3510, 18_876_174_592),
        "video connector": (29, 354_470_400),
        "audio connector": (29, 354_470_400),
        "text projection": (1, 188_160 * 3840),
        "video encoder": (94, 694_099_137),
        "video decoder": (92, 528_380_976),
        "vocoder": (194, 55_592_802),
        "spatial x2": (73, 497_867_929),
    },
    "2.3": SINCE_2_3
    | TEMPORAL
    | {"transformer": (4186, 18_988_838_144), "spatial x1.5": (73, 545_058_969)},
    "2.5": SINCE_2_3 | TEMPORAL | {"transformer": (4091, 18_987_859_200)},
}


@pytest.mark.parametrize(
    ("generation", "network"),
    [(generation, network) for generation, sizes in SIZES.items() for network in sizes],
)
def test_a_network_has_its_published_size(generation, network):
    assert size(generation, network) == SIZES[generation][network]


def test_the_size_of_every_published_network_is_checked():
    expected = {name: {*NETWORKS, *config["upsamplers"]} for name, config in OFFICIAL.items()}
    assert {generation: sizes.keys() for generation, sizes in SIZES.items()} == expected


@pytest.mark.parametrize(("generation", "tensors"), [("2.0", 3568), ("2.3", 4444), ("2.5", 4349)])
def test_transformer_and_connectors_share_a_prefix(generation, tensors):
    assert size(generation, "transformer", "video connector", "audio connector")[0] == tensors


def test_the_modulation_tables_of_2_5_are_a_small_part():
    tables = [s for name, s in shapes("2.5", "transformer").items() if "scale_shift_table" in name]
    assert sum(torch.Size(shape).numel() for shape in tables) == 4_730_880


# Networks of a file, tensors that two of them share, float32 parameters, and its bytes.
FILES = {
    "2.5 transformer": (
        "2.5",
        ("transformer", "video connector", "audio connector"),
        (4349, 0, 4_730_880),
        42_018_190_584,
    ),
    "2.5 video VAE": ("2.5", ("video encoder", "video decoder"), (170, 2, 0), 1_452_269_922),
    "2.5 audio VAE": (
        "2.5",
        ("audio encoder", "audio decoder", "vocoder"),
        (1329, 2, 0),
        364_866_540,
    ),
    "2.5 spatial upsampler": ("2.5", ("spatial x2",), (72, 0, 0), 995_778_752),
    "2.5 temporal upsampler": ("2.5", ("temporal x2",), (72, 0, 0), 261_944_000),
    "2.0 video VAE": ("2.0", ("video encoder", "video decoder"), (184, 2, 0), 2_445_008_522),
}


@pytest.mark.parametrize(
    ("generation", "networks", "counts", "published"), FILES.values(), ids=FILES
)
def test_a_published_file_is_its_weights_and_a_header(generation, networks, counts, published):
    tensors, shared, in_float32 = counts
    found, parameters = size(generation, *networks)
    assert found - shared == tensors
    # Two statistics of the latents stand in the file once, and in both halves of a VAE.
    bfloat16 = parameters - (STATISTICS if shared else 0) - in_float32
    header = published - (2 * bfloat16 + 4 * in_float32)
    # A header names each tensor with its type, shape and place.
    assert 60 * tensors < header < 1_000_000
