"""Runs networks whose blocks do not fit on the device: each block is there only while it is needed.

Host memory or a mapped file keeps the weights. A reader thread copies the next blocks into a fixed
number of slots of device memory while the current one computes; on CUDA the copies have a stream of
their own.
"""

from collections.abc import Callable, Collection, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from itertools import accumulate
from types import TracebackType
from typing import NamedTuple, Self, TypeAlias

import torch
from torch import Tensor, nn

# Of tensors within a slot: what kernels expect of memory that was allocated for one tensor.
ALIGNMENT = 256

LoadBlock: TypeAlias = Callable[[int], Mapping[str, Tensor]]


class BlockStreamer:
    """Gives every block of a network its weights before it runs, and takes them back afterwards.

    Blocks run one at a time. The usual order is first to last, over and over: after the last block
    the first one is fetched for the next pass. Any other order works, but waits for its blocks.
    """

    def __init__(
        self, blocks: nn.ModuleList, load: LoadBlock, device: torch.device, ahead: int = 1
    ) -> None:
        """Hook into the blocks; reads nothing yet.

        Args:
            blocks: On the meta device, and left there between their calls. What else the network
                holds is on ``device`` already.
            load: Tensors of a block by their names within it, all that its ``state_dict`` has and
                in the dtype to compute in. Runs in the reader thread, ahead of the pass. Pinned
                tensors are copied fastest; those of a mapped file are read from the disk here.
            device: Where the blocks compute.
            ahead: Blocks that are fetched before they are needed, at least 1; the device holds one
                more than that.

        Raises:
            ValueError: If ``ahead`` is below 1, or a block is not on the meta device.
        """
        if ahead < 1:
            raise ValueError(f"ahead={ahead} must be at least 1")
        for index, block in enumerate(blocks):
            if held := [name for name, tensor in block.state_dict().items() if not tensor.is_meta]:
                raise ValueError(
                    f"block {index} must be on the meta device, but {held[0]} holds a value"
                )
        self._blocks = blocks
        self._load = load
        self._device = device
        self._window = min(ahead + 1, len(blocks))
        self._meta = [block.state_dict() for block in blocks]
        self._free = [_Slot(device) for _ in range(self._window)]
        # Fetched or being fetched, and in use, by index of the block.
        self._coming: dict[int, tuple[_Slot, Future[_Fetched]]] = {}
        self._bound: dict[int, _Slot] = {}
        self._copies: torch.cuda.Stream | None = None
        if device.type == "cuda":
            self._copies = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        self._reader = ThreadPoolExecutor(max_workers=1, thread_name_prefix="block-reader")
        self._hooks = [
            handle
            for index, block in enumerate(blocks)
            for handle in (
                block.register_forward_pre_hook(partial(self._enter, index)),
                block.register_forward_hook(partial(self._leave, index), always_call=True),
            )
        ]

    @property
    def resident_bytes(self) -> int:
        """Device memory of all slots."""
        coming = [slot for slot, _ in self._coming.values()]
        return sum(slot.buffer.nbytes for slot in (*self._free, *coming, *self._bound.values()))

    def close(self) -> None:
        """End the reader thread, free the slots and unhook; the blocks stay on the meta device."""
        for handle in self._hooks:
            handle.remove()
        self._recall(keep=())
        self._reader.shutdown()
        if self._copies is not None:
            # The freed memory may go to the next stream of copies while blocks still compute.
            self._copies.wait_stream(torch.cuda.current_stream(self._device))
        self._free.clear()

    def __enter__(self) -> Self:
        """Nothing more than ``self``."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Close."""
        self.close()

    def _enter(self, index: int, block: nn.Module, _args: object) -> None:
        """Bind the weights of a block and have the next ones fetched."""
        window = [(index + offset) % len(self._blocks) for offset in range(self._window)]
        self._recall(keep=window)
        for wanted in window:
            if wanted not in self._coming:
                self._fetch(wanted)
        slot, fetching = self._coming.pop(index)
        self._bound[index] = slot
        fetched = fetching.result()
        if fetched.copied is not None:
            torch.cuda.current_stream(self._device).wait_event(fetched.copied)
        block.load_state_dict(fetched.weights, assign=True)

    def _leave(self, index: int, block: nn.Module, _args: object, _result: object) -> None:
        """Release a block, also one that failed or whose weights could not be fetched."""
        block.load_state_dict(self._meta[index], assign=True)
        self._free.append(self._bound.pop(index))

    def _recall(self, keep: Collection[int]) -> None:
        """Give up blocks that were fetched for a pass that ended early."""
        for index in self._coming.keys() - set(keep):
            slot, fetching = self._coming.pop(index)
            fetching.cancel()
            # Where it is being filled already, the next filling waits: there is one reader.
            self._free.append(slot)

    def _fetch(self, index: int) -> None:
        """Have the reader fill a free slot once the device has finished what it was given so far.

        That includes the last block that the slot held.
        """
        slot, idle = self._free.pop(), None
        if self._copies is not None:
            idle = torch.cuda.current_stream(self._device).record_event()
        self._coming[index] = slot, self._reader.submit(self._fill, slot, index, idle)

    @torch.no_grad()
    def _fill(self, slot: "_Slot", index: int, idle: torch.cuda.Event | None) -> "_Fetched":
        """Copy a block into a slot; runs in the reader thread."""
        if self._copies is None or idle is None:
            return _Fetched(slot.hold(self._load(index)), None)
        with torch.cuda.stream(self._copies):
            weights = self._load(index)
            self._copies.wait_event(idle)
            return _Fetched(slot.hold(weights), self._copies.record_event())


class _Fetched(NamedTuple):
    """Weights of a block on the device, and on CUDA the event after which they are there."""

    weights: dict[str, Tensor]
    copied: torch.cuda.Event | None


class _Slot:
    """Device memory for one block at a time, as large as the largest that it had to hold."""

    def __init__(self, device: torch.device) -> None:
        self.buffer = torch.empty(0, dtype=torch.uint8, device=device)

    def hold(self, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Copy tensors into the slot, over what it held before; on CUDA returns before the end."""
        room = [-(-tensor.nbytes // ALIGNMENT) * ALIGNMENT for tensor in weights.values()]
        if self.buffer.nbytes < sum(room):
            device, self.buffer = self.buffer.device, self.buffer.new_empty(0)
            self.buffer = torch.empty(sum(room), dtype=torch.uint8, device=device)
        held = {}
        starts = accumulate(room, initial=0)
        for (name, tensor), start in zip(weights.items(), starts, strict=False):
            place = self.buffer[start : start + tensor.nbytes].view(tensor.dtype)
            held[name] = place.view(tensor.shape).copy_(tensor, non_blocking=place.is_cuda)
        return held
