"""Networks whose blocks are streamed compute what resident ones do, in less memory."""

import threading
from functools import partial

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import nn

from rayreel.models.streaming import ALIGNMENT, BlockStreamer
from rayreel.models.text import tiny
from rayreel.models.text.language_models import make_gemma, parse_config
from tests.checkpoints import packed
from tests.models.tiny import sine_transformer, tiny_config, tiny_streams

CPU = torch.device("cpu")
WIDTH = 64
NUM_BLOCKS = 5
CUDA = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")


def stream_blocks(
    model: nn.Module, blocks: nn.ModuleList, device: torch.device, *, pin: bool, ahead: int = 1
) -> BlockStreamer:
    """Put a network on a device, all but its blocks, which are streamed there when they run."""
    kept = []
    for block in blocks:
        weights = block.state_dict()
        kept.append({name: t.pin_memory() if pin else t for name, t in weights.items()})
        meta = {name: torch.empty_like(t, device="meta") for name, t in weights.items()}
        block.load_state_dict(meta, assign=True)
    # Module.to refuses tensors on the meta device.
    model._apply(lambda t: t if t.is_meta else t.to(device))
    return BlockStreamer(blocks, kept.__getitem__, device, ahead)


class Block(nn.Module):
    """A layer and a buffer."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.layer = nn.Linear(WIDTH, WIDTH)
        self.layer.weight.data = torch.randn(WIDTH, WIDTH, generator=generator) / WIDTH**0.5
        self.register_buffer("scale", torch.tensor(1 + seed / 10))

    def forward(self, x):
        return self.layer(x) * self.scale


class Network(nn.Module):
    """Blocks between two layers that stay where they are."""

    def __init__(self, num_blocks=NUM_BLOCKS):
        super().__init__()
        self.inner = nn.Linear(WIDTH, WIDTH)
        self.blocks = nn.ModuleList(Block(seed) for seed in range(num_blocks))

    def forward(self, x):
        x = self.inner(x)
        for block in self.blocks:
            x = block(x)
        return x


BLOCK_BYTES = sum(-(-t.nbytes // ALIGNMENT) * ALIGNMENT for t in Block(0).state_dict().values())


@pytest.fixture
def network():
    torch.manual_seed(0)
    return Network().requires_grad_(False).eval()


@pytest.fixture
def x():
    return torch.randn(3, WIDTH, generator=torch.Generator().manual_seed(1))


def to_meta(network):
    """Take the weights of the blocks away; returns them."""
    kept = [block.state_dict() for block in network.blocks]
    for block in network.blocks:
        block.to("meta")
    return kept


def blocks_with_weights(network):
    return [
        index
        for index, block in enumerate(network.blocks)
        if not all(tensor.is_meta for tensor in block.state_dict().values())
    ]


def reader_threads():
    return [t for t in threading.enumerate() if t.name.startswith("block-reader")]


@pytest.mark.parametrize("ahead", [1, 2, 7])
@pytest.mark.parametrize("num_blocks", [1, 2, 5])
def test_streamed_passes_equal_resident_ones_bit_for_bit(num_blocks, ahead, x):
    network = Network(num_blocks).requires_grad_(False)
    expected = network(x)
    with stream_blocks(network, network.blocks, CPU, pin=False, ahead=ahead):
        for _ in range(3):
            assert torch.equal(network(x), expected)


@pytest.mark.parametrize("generation", ["2.0", "2.3"])
def test_the_transformer_streams_in_inference_mode(generation):
    model = sine_transformer(tiny_config(generation, num_layers=4))
    streams = tiny_streams(model.config)
    expected = model(*streams)
    blocks = model.transformer_blocks
    with stream_blocks(model, blocks, CPU, pin=False), torch.inference_mode():
        for ours, theirs in zip(model(*streams), expected, strict=True):
            assert torch.equal(ours, theirs)


@pytest.mark.parametrize("values", [tiny.CONFIG, packed.CONFIG], ids=["gemma3", "gemma4"])
def test_a_language_model_streams_and_returns_the_states_of_all_layers(values):
    torch.manual_seed(0)
    gemma = make_gemma(parse_config(values)).requires_grad_(False).eval()
    ids = torch.arange(2, 18).reshape(2, 8)
    mask = (ids > 4).long()
    expected = gemma(ids, mask)
    with stream_blocks(gemma, gemma.model.layers, CPU, pin=False):
        assert torch.equal(gemma(ids, mask), expected)
    assert gemma.device == CPU


@pytest.mark.parametrize("ahead", [1, 2])
def test_memory_holds_ahead_plus_one_blocks_and_weights_one(network, x, ahead):
    seen = []
    streamer = stream_blocks(network, network.blocks, CPU, pin=False, ahead=ahead)
    for block in network.blocks:
        block.layer.register_forward_hook(
            lambda *_: seen.append((blocks_with_weights(network), streamer.resident_bytes))
        )
    network(x)
    network(x)
    streamer.close()
    assert [weights for weights, _ in seen] == [[index] for index in range(NUM_BLOCKS)] * 2
    assert {size for _, size in seen[ahead:]} == {(ahead + 1) * BLOCK_BYTES}
    assert blocks_with_weights(network) == []


def test_the_next_block_is_read_while_one_computes_and_the_first_after_the_last(network, x):
    kept, reads = to_meta(network), [threading.Event() for _ in range(NUM_BLOCKS + 1)]
    order: list[int] = []

    def load(index):
        order.append(index)
        reads[len(order) - 1].set()
        return kept[index]

    with BlockStreamer(network.blocks, load, CPU):
        for index, block in enumerate(network.blocks):
            # Blocks until the read of the one after has begun; it would not, were it not ahead.
            wait = reads[index + 1].wait
            block.layer.register_forward_hook(lambda *_, wait=wait: None if wait(10) else 1 / 0)
        network(x)
    assert order == [0, 1, 2, 3, 4, 0]


def test_blocks_are_read_from_a_mapped_file(network, x, tmp_path):
    expected = network(x)
    weights = {f"{i}.{k}": t for i, b in enumerate(to_meta(network)) for k, t in b.items()}
    save_file(weights, tmp_path / "blocks.safetensors")
    with safe_open(tmp_path / "blocks.safetensors", framework="pt") as file:

        def load(index):
            names = network.blocks[index].state_dict()
            return {name: file.get_tensor(f"{index}.{name}") for name in names}

        with BlockStreamer(network.blocks, load, CPU):
            assert torch.equal(network(x), expected)


def test_weights_keep_the_dtype_that_they_are_loaded_in(x):
    class Widened(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.eye(WIDTH).to(torch.float8_e4m3fn), False)
            self.table = nn.Parameter(torch.ones(WIDTH), False)

        def forward(self, x):
            assert (self.weight.dtype, self.table.dtype) == (torch.float8_e4m3fn, torch.float32)
            return x @ self.weight.to(x.dtype) + self.table

    model = nn.Sequential(Widened(), Widened())
    expected = model(x)
    with stream_blocks(model, nn.ModuleList(model), CPU, pin=False):
        assert torch.equal(model(x), expected)


def test_a_failed_block_leaves_the_streamer_usable(network, x):
    expected = network(x)
    layer = network.blocks[2].layer
    with stream_blocks(network, network.blocks, CPU, pin=False):
        fault = layer.register_forward_pre_hook(lambda *_: 1 / 0)
        for _ in range(3):
            with pytest.raises(ZeroDivisionError):
                network(x)
            assert blocks_with_weights(network) == []
        fault.remove()
        assert torch.equal(network(x), expected)


def test_blocks_may_run_in_any_order(network, x):
    expected = [block(x) for block in network.blocks]
    with stream_blocks(network, network.blocks, CPU, pin=False):
        for index in (3, 1, 1, 4, 0):
            assert torch.equal(network.blocks[index](x), expected[index])


def test_an_error_of_a_read_is_raised_by_the_block_that_needs_it(network, x):
    expected, kept, faults = network(x), to_meta(network), [OSError("gone")]

    def load(index):
        if index == 2 and faults:
            raise faults[0]
        return kept[index]

    with BlockStreamer(network.blocks, load, CPU):
        assert network.blocks[1](x).isfinite().all()
        with pytest.raises(OSError, match="gone"):
            network(x)
        assert blocks_with_weights(network) == []
        faults.clear()
        assert torch.equal(network(x), expected)


def test_weights_that_do_not_fit_the_block_are_refused(network, x):
    kept = to_meta(network)
    del kept[0]["layer.bias"]
    with (
        BlockStreamer(network.blocks, kept.__getitem__, CPU),
        pytest.raises(RuntimeError, match=r"Missing key\(s\).*layer\.bias"),
    ):
        network(x)
    assert blocks_with_weights(network) == []


def test_closing_ends_the_thread_and_frees_the_memory(network, x):
    before = reader_threads()
    streamer = stream_blocks(network, network.blocks, CPU, pin=False)
    network(x)
    assert len(reader_threads()) == len(before) + 1
    streamer.close()
    streamer.close()
    assert reader_threads() == before
    assert streamer.resident_bytes == 0
    assert not network.blocks[0]._forward_hooks


def test_a_slot_grows_with_the_largest_block():
    blocks = nn.ModuleList(nn.Linear(1, n, bias=False) for n in (100, 500, 300))
    model = nn.Sequential(blocks[0], blocks[1], blocks[2])
    with stream_blocks(model, blocks, CPU, pin=False) as streamer:
        for block in (*blocks, *blocks):
            block(torch.ones(1))
        assert streamer.resident_bytes == 2 * 2048


def test_no_block_ahead_and_blocks_with_weights_are_refused(network):
    load = to_meta(network).__getitem__
    with pytest.raises(ValueError, match="ahead=0 must be at least 1"):
        BlockStreamer(network.blocks, load, CPU, ahead=0)
    network.blocks[1].layer.to_empty(device="cpu")
    with pytest.raises(ValueError, match=r"block 1 must .* but layer.weight holds a value"):
        BlockStreamer(network.blocks, load, CPU)


@pytest.mark.gpu
@CUDA
@pytest.mark.parametrize("pin", [True, False])
def test_cuda_streams_within_two_blocks_of_memory_and_computes_the_same(pin):
    device = torch.device("cuda")
    model = nn.Sequential(*(nn.Linear(2048, 2048, bias=False) for _ in range(16)))
    blocks = nn.ModuleList(model.requires_grad_(False))
    x = torch.randn(64, 2048, device=device)
    expected = model.to(device)(x)
    model.to("cpu")
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    with stream_blocks(model, blocks, device, pin=pin):
        outputs = [model(x) for _ in range(8)]
    block_bytes = 2048 * 2048 * 4
    assert all(torch.equal(output, expected) for output in outputs)
    assert torch.cuda.max_memory_allocated() - before < 2 * block_bytes + 20 * x.nbytes


@pytest.mark.gpu
@CUDA
def test_cuda_copies_a_block_while_the_one_before_still_computes():
    device = torch.device("cuda")
    copied_first: list[bool] = []
    model = nn.Sequential(*(nn.Linear(4096, 4096, bias=False) for _ in range(6)))
    blocks = nn.ModuleList(model.requires_grad_(False))

    def wait_for_the_copy(index, *_args):
        computed = torch.cuda.current_stream().record_event()
        copied = streamer._coming[(index + 1) % len(blocks)][1].result().copied
        assert copied is not None
        copied.synchronize()
        copied_first.append(not computed.query())

    for index, block in enumerate(blocks):
        block.register_forward_hook(partial(wait_for_the_copy, index))
    # Some milliseconds of work per block on the fastest of devices, copies need one or two.
    x = torch.randn(65536, 4096, device=device)
    with stream_blocks(model, blocks, device, pin=True) as streamer:
        model(x)
        model(x)
    assert copied_first[1:] == [True] * 11
