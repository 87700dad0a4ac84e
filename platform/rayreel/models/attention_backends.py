"""Attention kernels behind one signature, and the choice among them.

Letters: B batch, T query tokens, S context tokens, H heads, K head width.
"""

import importlib
import logging
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor

from rayreel.errors import SpecError

logger = logging.getLogger(__name__)

# Queries (B, T, H, K), keys and values (B, S, H, K), additive bias or None; to (B, T, H, K).
Kernel: TypeAlias = Callable[[Tensor, Tensor, Tensor, Tensor | None], Tensor]

_HALF = (torch.float16, torch.bfloat16)


@dataclass(frozen=True, slots=True)
class Call:
    """What the choice of a kernel depends on.

    Attributes:
        device: Where the values lie.
        dtype: Of the values.
        head_dim: K.
        masked: Whether an additive bias is given.
    """

    device: torch.device
    dtype: torch.dtype
    head_dim: int
    masked: bool

    def __str__(self) -> str:
        """As logs and errors name it."""
        kind = "masked" if self.masked else "unmasked"
        return f"{self.device}, {_short(self.dtype)}, head size {self.head_dim}, {kind}"


@dataclass(frozen=True, slots=True, kw_only=True)
class CudaLimits:
    """What a kernel of another package asks of a call.

    Attributes:
        generations: Major compute capabilities, the first and the last; ``None`` is no last one.
        dtypes: Of the values.
        most_head_dim: Largest K; every one of these packages wants multiples of 8.
        takes_mask: Whether a bias can be given.
    """

    generations: tuple[int, int | None]
    dtypes: tuple[torch.dtype, ...] = _HALF
    most_head_dim: int
    takes_mask: bool = False

    def refuse(self, call: Call) -> str | None:
        """Why the kernel cannot serve a call, or ``None``."""
        if call.device.type != "cuda":
            return f"needs CUDA, not {call.device.type}"
        first, last = self.generations
        major, minor = torch.cuda.get_device_capability(call.device)
        if major < first or (last is not None and major > last):
            upper = " or later" if last is None else f" to {last}.x" if last > first else ""
            return f"needs compute capability {first}.x{upper}, not {major}.{minor}"
        if call.dtype not in self.dtypes:
            return f"needs {' or '.join(map(_short, self.dtypes))}, not {_short(call.dtype)}"
        if call.head_dim > self.most_head_dim or call.head_dim % 8:
            return f"needs head sizes up to {self.most_head_dim} in steps of 8, not {call.head_dim}"
        if call.masked and not self.takes_mask:
            return "takes no mask"
        return None


@dataclass(frozen=True, slots=True, kw_only=True)
class Backend:
    """One attention function of one package, imported when it is first wanted.

    Attributes:
        name: As a person writes it.
        module: Where the function lies.
        function: Its name.
        limits: What it asks of a call; ``None`` where it serves every call.
        run: Calls the function, given first, in its own layout.
    """

    name: str
    module: str
    function: str
    limits: CudaLimits | None
    run: Callable[[Callable[..., Any], Tensor, Tensor, Tensor, Tensor | None], Tensor]

    @property
    def takes_mask(self) -> bool:
        """Whether it can serve masked calls at all."""
        return self.limits is None or self.limits.takes_mask

    def load(self) -> Callable[..., Any] | str:
        """Its function, or why there is none."""
        try:
            function = getattr(importlib.import_module(self.module), self.function)
        except Exception as error:  # noqa: BLE001 - built for another torch or driver, anything
            return f"cannot be imported: {type(error).__name__}: {error}"
        return function


def _run_flash(
    function: Callable[..., Any],
    q_BTHK: Tensor,
    k_BSHK: Tensor,
    v_BSHK: Tensor,
    mask: Tensor | None,
) -> Tensor:
    assert mask is None
    out = function(q_BTHK.to(v_BSHK.dtype), k_BSHK.to(v_BSHK.dtype), v_BSHK)
    # FlashAttention 4, and the first releases of 3, return the log-sum-exp beside the result.
    return out[0] if isinstance(out, tuple) else out


def _run_xformers(
    function: Callable[..., Any],
    q_BTHK: Tensor,
    k_BSHK: Tensor,
    v_BSHK: Tensor,
    mask: Tensor | None,
) -> Tensor:
    q_BTHK, k_BSHK = q_BTHK.to(v_BSHK.dtype), k_BSHK.to(v_BSHK.dtype)
    if mask is None:
        return function(q_BTHK, k_BSHK, v_BSHK)
    (batch, tokens, heads, _), length = q_BTHK.shape, k_BSHK.shape[1]
    # Rows of the bias must start at multiples of 16 bytes in memory; the bias itself may not be
    # longer than the keys.
    rows = F.pad(mask.expand(*mask.shape[:-1], length), (0, -length % 8))[..., :length]
    bias_BHTS = rows.expand(batch, heads, tokens, length)
    return function(q_BTHK, k_BSHK, v_BSHK, attn_bias=bias_BHTS)


def _run_sdpa(
    function: Callable[..., Any],
    q_BTHK: Tensor,
    k_BSHK: Tensor,
    v_BSHK: Tensor,
    mask: Tensor | None,
) -> Tensor:
    q, k, v = (x.transpose(1, 2) for x in (q_BTHK, k_BSHK, v_BSHK))
    out: Tensor = function(q, k, v, attn_mask=mask)
    return out.transpose(1, 2)


# Best first. On compute capability 9.x FlashAttention 3 is the fastest; 4 is made for 10.x.
BACKENDS: tuple[Backend, ...] = (
    Backend(
        name="flash3",
        module="flash_attn_interface",
        function="flash_attn_func",
        limits=CudaLimits(generations=(9, 9), most_head_dim=256),
        run=_run_flash,
    ),
    Backend(
        name="flash4",
        module="flash_attn.cute",
        function="flash_attn_func",
        limits=CudaLimits(generations=(9, 10), most_head_dim=128),
        run=_run_flash,
    ),
    Backend(
        name="flash2",
        module="flash_attn",
        function="flash_attn_func",
        limits=CudaLimits(generations=(8, None), most_head_dim=256),
        run=_run_flash,
    ),
    Backend(
        name="xformers",
        module="xformers.ops",
        function="memory_efficient_attention",
        # Its kernels that take a bias stop at 9.x.
        limits=CudaLimits(
            generations=(5, 9),
            dtypes=(*_HALF, torch.float32),
            most_head_dim=256,
            takes_mask=True,
        ),
        run=_run_xformers,
    ),
    Backend(
        name="sdpa",
        module="torch.nn.functional",
        function="scaled_dot_product_attention",
        limits=None,
        run=_run_sdpa,
    ),
)


class Selection:
    """Chooses a kernel for each kind of call, once, and says so."""

    def __init__(self) -> None:
        self.backends = {backend.name: backend for backend in BACKENDS}
        self._forced: Backend | None = None
        self._functions: dict[str, Callable[..., Any] | str] = {}
        self._kernels: dict[Call, Kernel] = {}

    def force(self, name: str) -> None:
        """Use one back end alone; see ``force_backend``."""
        if name != "auto" and name not in self.backends:
            legal = ", ".join(("auto", *self.backends))
            raise SpecError(f"unknown attention back end {name!r}; known: {legal}")
        self._functions.clear()
        self._kernels.clear()
        forced = None if name == "auto" else self.backends[name]
        if forced is not None and (reason := self.missing(name)):
            raise SpecError(
                f"attention back end {name!r} is not available, it {reason}; "
                "install its package, or choose 'auto'"
            )
        self._forced = forced

    def kernel(self, call: Call) -> Kernel:
        """The kernel for one kind of call, chosen when it is first asked for.

        Raises:
            ValueError: If a forced back end cannot serve it.
        """
        found = self._kernels.get(call)
        if found is None:
            backend = self.choose(call)
            function = self._function(backend)
            assert not isinstance(function, str)
            found = self._kernels[call] = partial(backend.run, function)
        return found

    def missing(self, name: str) -> str | None:
        """Why a back end cannot be imported here, or ``None``."""
        function = self._function(self.backends[name])
        return function if isinstance(function, str) else None

    def choose(self, call: Call) -> Backend:
        """The best back end for a call; says which, and why better ones were passed over.

        Raises:
            ValueError: If a forced back end cannot serve it.
        """
        forced = self._forced
        if forced is not None and call.masked and not forced.takes_mask:
            forced = None
        refused: list[str] = []
        for backend in (forced,) if forced else self.backends.values():
            # What cannot serve the call is not even imported.
            reason = backend.limits.refuse(call) if backend.limits else None
            reason = reason or self.missing(backend.name)
            if reason is None:
                passed = f"; passed over: {', '.join(refused)}" if refused else ""
                logger.info("attention (%s): %s%s", call, backend.name, passed)
                return backend
            refused.append(f"{backend.name} ({reason})")
        raise ValueError(
            f"the forced attention back end cannot serve a call ({call}): {', '.join(refused)}; "
            "force another one, or 'auto'"
        )

    def _function(self, backend: Backend) -> Callable[..., Any] | str:
        if backend.name not in self._functions:
            self._functions[backend.name] = backend.load()
        return self._functions[backend.name]


SELECTION = Selection()
"""What all models of this process use."""


def force_backend(name: str) -> None:
    """Make all models of this process use one attention kernel, or choose freely again.

    Masked and unmasked calls are chosen independently: a FlashAttention kernel, which takes no
    mask, is forced upon unmasked calls, and masked ones use the best of the kernels that take one.
    ``xformers`` and ``sdpa`` are forced upon both. Where a forced kernel cannot serve a call that
    it is forced upon, the call fails with ``ValueError``; no other kernel replaces it.

    Args:
        name: ``auto`` or one of ``BACKENDS``.

    Raises:
        SpecError: If the name is unknown, or its package cannot be imported here.
    """
    SELECTION.force(name)


def _short(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
