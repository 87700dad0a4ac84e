"""Where a network is between its uses: on the device, nowhere, or in the host's memory."""

import logging
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Generic, Literal, TypeVar

import torch
from torch import Tensor, nn

from rayreel.config.jobs import Hold
from rayreel.models.streaming import BlockStreamer, LoadBlock
from rayreel.pipelines.devices import release_memory

log = logging.getLogger(__name__)

M = TypeVar("M", bound=nn.Module)

Policy = Hold | Literal["exchange"]

Wanted = Callable[[str], bool]
"""Whether a weight is asked for, by its name in the network."""


@dataclass(frozen=True)
class Source(Generic[M]):
    """What a network is made of.

    Attributes:
        outline: Makes the network without weights, on the meta device.
        weights: Reads the weights that are wanted, onto a device and as the network computes with
            them.
        blocks: The part of it that can be streamed; ``None`` for networks that fit as a whole.
    """

    outline: Callable[[], M]
    weights: Callable[[torch.device, Wanted], dict[str, Tensor]]
    blocks: Callable[[M], nn.ModuleList] | None = None

    def build(self, device: torch.device) -> M:
        """The network with all of its weights."""
        start = time.perf_counter()
        # Weights made in inference mode could not be shared with a network that is built outside.
        with torch.inference_mode(False):
            network = self.outline()
            network.load_state_dict(self.weights(device, lambda _: True), assign=True)
            # Buffers that no file holds are still where they were made.
            network = network.requires_grad_(False).eval().to(device)
        log.info("loaded %s in %.1f s", type(network).__name__, time.perf_counter() - start)
        return network


class Holding(ABC, Generic[M]):
    """One network under one policy; lent for a ``with`` block, which may be nested.

    Attributes:
        users: Blocks that are open.
    """

    def __init__(self, source: Source[M], device: torch.device) -> None:
        """Keep the source; builds nothing yet.

        Args:
            source: Of the network.
            device: Where it computes.
        """
        self._source = source
        self._device = device
        self.users = 0
        self._lent: M | None = None

    @contextmanager
    def lent(self) -> Iterator[M]:
        """The network on the device, at least until the block ends."""
        if self._lent is None:
            self._lent = self._bring()
        self.users += 1
        try:
            yield self._lent
        finally:
            self.users -= 1
            if not self.users:
                network, self._lent = self._lent, None
                self._take_back(network)

    @abstractmethod
    def _bring(self) -> M:
        """Put the network on the device."""

    @abstractmethod
    def _take_back(self, network: M) -> None:
        """Free the device as far as the policy says."""


class Resident(Holding[M]):
    """Built once; stays on the device."""

    network: M | None = None

    def _bring(self) -> M:
        if self.network is None:
            self.network = self._source.build(self._device)
        return self.network

    def _take_back(self, network: M) -> None:
        pass


class PerCall(Holding[M]):
    """Built for each use and dropped after it."""

    def _bring(self) -> M:
        return self._source.build(self._device)

    def _take_back(self, network: M) -> None:
        # The caller's block still names it: its weights go now, not with the last reference.
        network.to("meta")
        release_memory(self._device)


class Parked(Holding[M]):
    """Built once in the host's memory; goes to the device as a whole for each use."""

    _network: M | None = None

    def _bring(self) -> M:
        if self._network is None:
            self._network = self._source.build(torch.device("cpu"))
        return self._network.to(self._device)

    def _take_back(self, network: M) -> None:
        network.to("cpu")
        release_memory(self._device)


class Streamed(Holding[M]):
    """Blocks come to the device one after the other while the network runs.

    The rest of the network is there for each use. Between uses the weights stay in the host's
    memory, or only in the mapped files, from where then every pass reads the blocks.
    """

    def __init__(self, source: Source[M], device: torch.device, *, keep: bool) -> None:
        """As for any holding.

        Args:
            source: Of a network with blocks.
            device: Where it computes.
            keep: Whether the weights stay in the host's memory between uses.
        """
        super().__init__(source, device)
        self._keep = keep
        self._opened: tuple[M, LoadBlock] | None = None
        self._streamer: BlockStreamer | None = None

    def _bring(self) -> M:
        if self._opened is None:
            self._opened = self._open()
        network, load = self._opened
        _move_rest(network, self._device)
        self._streamer = BlockStreamer(self._blocks(network), load, self._device)
        return network

    def _take_back(self, network: M) -> None:
        assert self._streamer is not None, "it was brought"
        self._streamer.close()
        self._streamer = None
        _move_rest(network, torch.device("cpu" if self._keep else "meta"))
        if not self._keep:
            self._opened = None
        release_memory(self._device)

    def _open(self) -> tuple[M, LoadBlock]:
        """The network with its blocks on the meta device, and what gives them their weights."""
        network = self._source.outline()
        blocks = self._blocks(network)
        (path,) = [name for name, module in network.named_modules() if module is blocks]
        rest = self._source.weights(self._device, lambda name: not name.startswith(f"{path}."))
        network.load_state_dict(rest, strict=False, assign=True)
        network.requires_grad_(False).eval()

        def load(index: int) -> dict[str, Tensor]:
            prefix = f"{path}.{index}."
            weights = self._source.weights(self._device, lambda name: name.startswith(prefix))
            return {name.removeprefix(prefix): tensor for name, tensor in weights.items()}

        if not self._keep:
            return network, load
        pin = self._device.type == "cuda"
        kept = [_on_host(load(index), pin=pin) for index in range(len(blocks))]
        return network, kept.__getitem__

    def _blocks(self, network: M) -> nn.ModuleList:
        assert self._source.blocks is not None, "only such networks are streamed"
        return self._source.blocks(network)


def hold(policy: Policy, source: Source[M], device: torch.device) -> Holding[M]:
    """The holding of a policy; a network without blocks is moved, or read, as a whole."""
    match policy:
        case "resident" | "exchange":
            return Resident(source, device)
        case "per_call":
            return PerCall(source, device)
        case "offload" | "disk" if source.blocks:
            return Streamed(source, device, keep=policy == "offload")
        case "offload":
            return Parked(source, device)
        case "disk":
            return PerCall(source, device)


def _move_rest(network: nn.Module, device: torch.device) -> None:
    """Move what a network has of its weights; what is on the meta device stays there."""
    # Module.to refuses networks that are partly there.
    network._apply(lambda t: t if t.is_meta else t.to(device))  # type: ignore[no-untyped-call]


def _on_host(weights: Mapping[str, Tensor], *, pin: bool) -> dict[str, Tensor]:
    """Copies in the host's memory; page-locked ones go to a GPU fastest."""
    return {name: t.cpu().pin_memory() if pin else t.cpu() for name, t in weights.items()}
