"""Linear layers whose weights are stored in float8.

Letters: D input width, E output width.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

FLOAT8 = (torch.float8_e4m3fn, torch.float8_e5m2)


class Fp8CastLinear(nn.Linear):
    """Weight ``(E, D)`` and bias ``(E,)`` in float8, widened to the input's dtype on each call."""

    def forward(self, x: Tensor) -> Tensor:
        """``(..., D)`` to ``(..., E)``, in the dtype of ``x``."""
        bias = None if self.bias is None else self.bias.to(x.dtype)
        return F.linear(x, self.weight.to(x.dtype), bias)


class Fp8ScaledLinear(nn.Linear):
    """Weight ``(E, D)`` in float8 times a scale, and inputs rounded to float8 by a static one.

    On a CUDA device that multiplies float8 matrices (compute capability 8.9 and above) it does so;
    elsewhere, and where a width is no multiple of 16, the rounded inputs and the weight are widened
    and multiplied in the input's dtype. Both agree within the rounding of that dtype: each factor
    is rounded once more, so an output differs by at most ``3 * eps * sum(abs(x * w))``, in bfloat16
    1 % of the largest outputs.

    Attributes:
        weight_scale: Float32 scalar.
        input_scale: Float32 scalar; ``None`` leaves the inputs as they are.
        bias_scale: Float32 scalar where the bias is in float8 too.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        *,
        bias: bool = True,
        input_scale: bool = True,
        bias_scale: bool = False,
    ) -> None:
        """Make a layer without values.

        Args:
            in_features: D.
            out_features: E.
            bias: Whether it has one.
            input_scale: Whether inputs are rounded to float8.
            bias_scale: Whether the bias has a scale.
        """
        super().__init__(in_features, out_features, bias=bias)
        self.weight_scale: Tensor
        self.input_scale: Tensor | None
        self.bias_scale: Tensor | None
        for name, there in (
            ("weight_scale", True),
            ("input_scale", input_scale),
            ("bias_scale", bias_scale),
        ):
            self.register_buffer(name, torch.ones(()) if there else None)

    def forward(self, x: Tensor) -> Tensor:
        """``(..., D)`` to ``(..., E)``, in the dtype of ``x``."""
        if self.input_scale is None:
            return F.linear(x, widened(self.weight, self.weight_scale, x.dtype), self._bias(x))
        rounded = to_float8(x * (1 / self.input_scale), torch.float8_e4m3fn)
        if not self._multiplies_float8(x.device):
            x = widened(rounded, self.input_scale, x.dtype)
            return F.linear(x, widened(self.weight, self.weight_scale, x.dtype), self._bias(x))
        product = torch._scaled_mm(
            rounded.flatten(0, -2).contiguous(),
            self.weight.t(),
            scale_a=self.input_scale,
            scale_b=self.weight_scale,
            out_dtype=x.dtype,
            use_fast_accum=True,
        ).view(*x.shape[:-1], -1)
        bias = self._bias(x)
        return product if bias is None else product + bias

    def _bias(self, x: Tensor) -> Tensor | None:
        if self.bias is None:
            return None
        if self.bias_scale is None:
            return self.bias.to(x.dtype)
        return widened(self.bias, self.bias_scale, x.dtype)

    def _multiplies_float8(self, device: torch.device) -> bool:
        """Whether there is a product of such matrices on a device."""
        return (
            device.type == "cuda"
            and torch.version.cuda is not None
            and torch.cuda.get_device_capability(device) >= (8, 9)
            and self.weight.dtype == torch.float8_e4m3fn
            and self.in_features % 16 == 0
            and self.out_features % 16 == 0
        )


def widened(stored: Tensor, scale: Tensor, dtype: torch.dtype) -> Tensor:
    """Float8 values times their scale.

    Args:
        stored: Float8, any shape.
        scale: Float32 scalar.
        dtype: Of the result, which is rounded once.
    """
    # A scalar tensor doesn't widen the other factor: the product is formed in float32.
    return stored.to(dtype) * scale


def to_float8(values: Tensor, dtype: torch.dtype) -> Tensor:
    """Nearest float8 values; what exceeds the largest finite one becomes it.

    Args:
        values: Floating-point, any shape.
        dtype: ``float8_e4m3fn`` or ``float8_e5m2``.
    """
    # Without the clamp some releases of PyTorch make NaN or infinity of it.
    limit = torch.finfo(dtype).max
    return values.clamp(-limit, limit).to(dtype)
