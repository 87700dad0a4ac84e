"""Float8 weights: which a file has or shall have, and the layers that hold them.

Everything here works on the meta device too, so that what a header says can be judged by the same
rules as tensors.
"""

from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor, nn

from rayreel.checkpoints.mapped import DTYPES
from rayreel.errors import CheckpointError
from rayreel.models.quantized import FLOAT8, Fp8CastLinear, Fp8ScaledLinear, to_float8, widened

QuantizationName = Literal["auto", "none", "fp8_cast"]

# Linear layers of the blocks that fp8_cast stores in float8; as in Lightricks/LTX-2, audio's
# feed-forward is one of them.
_BLOCKS = "transformer_blocks."
_CAST_LAYERS = (".to_q", ".to_k", ".to_v", ".to_out.0", "ff.net.0.proj", "ff.net.2")

_CASTABLE = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


def quantize(tensors: Mapping[str, Tensor], policy: QuantizationName) -> dict[str, Tensor]:
    """Weights as a policy wants them.

    Args:
        tensors: Weights and scales by name; unchanged, and shared where nothing happens to them.
        policy: ``auto`` leaves all as the file has it, ``none`` widens float8 to bfloat16,
            ``fp8_cast`` is ``cast_to_fp8``.
    """
    match policy:
        case "auto":
            return dict(tensors)
        case "none":
            return dequantize(tensors)
        case "fp8_cast":
            return cast_to_fp8(tensors)


def cast_to_fp8(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights and biases of the blocks' linear layers as the nearest ``float8_e4m3fn``, unscaled.

    Float8 weights that have a scale are widened first, as by ``dequantize``; those without one stay
    as they are.

    Args:
        tensors: Weights and scales by name; unchanged, and shared where nothing happens to them.
    """
    return {
        name: to_float8(tensor, torch.float8_e4m3fn)
        if _is_cast(name) and tensor.dtype in _CASTABLE
        else tensor
        for name, tensor in _without_scales(tensors).items()
    }


def dequantize(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Float8 weights widened to bfloat16, times their scale where they have one; no scales.

    Args:
        tensors: Weights and scales by name; unchanged, and shared where nothing happens to them.
    """
    return {
        name: tensor.bfloat16() if tensor.dtype in FLOAT8 else tensor
        for name, tensor in _without_scales(tensors).items()
    }


def quantize_per_tensor(weight: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Float8 values that fill their range, and the scale that takes them back.

    Args:
        weight: Float32, any shape.
        dtype: Of the values.

    Returns:
        Values of the same shape, and a float32 scalar.
    """
    largest = weight.abs().amax()
    scale = torch.where(largest > 0, torch.finfo(dtype).max / largest, 1.0)
    return to_float8(weight * scale, dtype), 1 / scale


def cast_weight(name: str, tensor: Tensor, dtype: torch.dtype | None) -> Tensor:
    """A weight in the dtype in which a network shall hold it.

    Modulation tables keep the precision of their file, as they are cast where they are used; scales
    and float8 weights, which mean nothing in another dtype, keep theirs.

    Args:
        name: Of the weight.
        tensor: The weight.
        dtype: Of the network; ``None`` keeps the file's.
    """
    is_scale = tensor.ndim == 0 and tensor.dtype == torch.float32 and name.endswith("_scale")
    if dtype is None or is_scale or "scale_shift_table" in name or tensor.dtype not in _CASTABLE:
        return tensor
    return tensor.to(dtype)


def swap_linears(model: nn.Module, tensors: Mapping[str, Tensor], *, source: str) -> None:
    """Replace the linear layers of a network whose weights are in float8 by such as can hold them.

    Which layers these are shows in the weights alone; those with a scale get one.

    Args:
        model: Network on the meta device, changed.
        tensors: Weights and scales by name; names that the network does not have are left to
            ``check_fit``.
        source: Named in errors.

    Raises:
        CheckpointError: If weights are stored in integers, or float8 ones are not of linear layers.
    """
    wanted = model.state_dict()
    quantized = set()
    for name in sorted(tensors.keys() & wanted.keys()):
        dtype = tensors[name].dtype
        if wanted[name].is_floating_point() and not dtype.is_floating_point:
            raise CheckpointError(
                f"{source}: {name} is stored as {dtype}; NVFP4 and int8 files are not supported, "
                "take the bfloat16 or the float8 one"
            )
        if dtype in FLOAT8:
            quantized.add(name.rpartition(".")[0])
    for path in sorted(quantized):
        linear = model.get_submodule(path)
        if not isinstance(linear, nn.Linear):
            raise CheckpointError(
                f"{source}: {path} has float8 weights, which only linear layers can have, not "
                f"{type(linear).__name__}; quantization 'none' widens them"
            )
        owner, _, leaf = path.rpartition(".")
        with torch.device("meta"):
            setattr(model.get_submodule(owner), leaf, _float8_linear(linear, path, tensors))


def meta_tensors(header: Mapping[str, tuple[tuple[int, ...], str]]) -> dict[str, Tensor]:
    """Tensors without data for what a header lists.

    Args:
        header: Shape, and dtype in safetensors' spelling (``BF16``, ``F8_E4M3``), by name.

    Raises:
        CheckpointError: If there is no such dtype.
    """
    if unknown := {dtype for _, dtype in header.values()} - DTYPES.keys():
        raise CheckpointError(
            f"weights of type {', '.join(sorted(unknown))} are not supported; "
            f"supported: {', '.join(DTYPES)}"
        )
    return {
        name: torch.empty(shape, dtype=DTYPES[dtype], device="meta")
        for name, (shape, dtype) in header.items()
    }


def stored_bytes(
    header: Mapping[str, tuple[tuple[int, ...], str]],
    policy: QuantizationName,
    dtype: torch.dtype | None = None,
) -> int:
    """Bytes of a network's weights once it is built, from a header alone.

    Args:
        header: As for ``meta_tensors``: weights of one network by name.
        policy: As for ``quantize``.
        dtype: Of the network; ``None`` keeps the file's.

    Raises:
        CheckpointError: If there is no such dtype.
    """
    tensors = quantize(meta_tensors(header), policy)
    return sum(cast_weight(name, tensor, dtype).nbytes for name, tensor in tensors.items())


def _is_cast(name: str) -> bool:
    layer, _, leaf = name.rpartition(".")
    return leaf in ("weight", "bias") and _BLOCKS in layer and layer.endswith(_CAST_LAYERS)


def _without_scales(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Float8 weights with scales widened to bfloat16; their scales and those of inputs dropped."""
    float8 = {name for name, tensor in tensors.items() if tensor.dtype in FLOAT8}
    scaled = {name for name in float8 if f"{name}_scale" in tensors}
    scales = {f"{name}_scale" for name in scaled}
    scales |= {name.removesuffix("weight") + "input_scale" for name in float8}
    return {
        name: widened(tensor, tensors[f"{name}_scale"], torch.bfloat16)
        if name in scaled
        else tensor
        for name, tensor in tensors.items()
        if name not in scales
    }


def _float8_linear(linear: nn.Linear, path: str, tensors: Mapping[str, Tensor]) -> nn.Linear:
    sizes, bias = (linear.in_features, linear.out_features), linear.bias is not None
    if f"{path}.weight_scale" not in tensors:
        return Fp8CastLinear(*sizes, bias=bias)
    return Fp8ScaledLinear(
        *sizes,
        bias=bias,
        input_scale=f"{path}.input_scale" in tensors,
        bias_scale=f"{path}.bias_scale" in tensors,
    )
