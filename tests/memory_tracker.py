"""Counts the bytes of the tensors that are alive while a network runs."""

import weakref
from typing import Any

from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class MemoryTracker(TorchDispatchMode):
    """Bytes of the storages that operators made under this mode and that are still in use.

    Views and in-place results share the storage that they came from, so they count once. What was
    there before (weights, inputs) does not count, nor do buffers inside a kernel. It works on the
    meta device too, so a network of any size can be measured without its memory.

    Use it under ``torch.no_grad``: inference mode would hide the parts of composite operators.

    Attributes:
        live: Bytes now.
        peak: Most bytes so far.
        peak_operator: After which operator the peak was reached.
    """

    def __init__(self) -> None:
        super().__init__()
        self.live: int = 0
        self.peak: int = 0
        self.peak_operator = ""
        self._known: set[int] = set()

    def __torch_dispatch__(
        self,
        func: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        """Run an operator and count what it made."""
        kwargs = kwargs or {}
        for tensor in _tensors((args, kwargs)):
            self._watch(tensor, 0)
        result = func(*args, **kwargs)
        for tensor in _tensors(result):
            self._watch(tensor, tensor.untyped_storage().nbytes())
        if self.live > self.peak:
            self.peak, self.peak_operator = self.live, str(func)
        return result

    def _watch(self, tensor: Tensor, nbytes: int) -> None:
        storage = tensor.untyped_storage()
        if storage._cdata not in self._known:
            self._known.add(storage._cdata)
            self.live += nbytes
            weakref.finalize(storage, self._forget, storage._cdata, nbytes)

    def _forget(self, key: int, nbytes: int) -> None:
        self._known.discard(key)
        self.live -= nbytes


def _tensors(tree: Any) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(tree) if isinstance(leaf, Tensor)]
