"""How visible the borders of tiles are."""

import math

import torch
from torch import Tensor

from rayreel.models.tiling import Axis, TilePlan


def seam_metric(video: Tensor, plan: TilePlan, reference: Tensor | None = None) -> float:
    """Contrast between neighbours across the borders of tiles, by that between other neighbours.

    Args:
        video: ``(B, C, F, H, W)``, made in tiles.
        plan: Of the tiles that gave it.
        reference: The same without tiles: what is measured then is the change against it, which
            shows borders that a rough picture hides. ``None`` suits smooth pictures.

    Returns:
        The ratio along the axis where it is largest. At 1 and below, nothing tells borders from
        what is beside them; 1 too where nothing is cut, or nothing is changed.

    Raises:
        ValueError: If the plan is of another size.
    """
    extents = (plan.time.extent, plan.height.extent, plan.width.extent)
    for tensor in (video, reference):
        if tensor is not None and tuple(tensor.shape[2:]) != extents:
            raise ValueError(f"the plan is for {extents} positions, not {tuple(tensor.shape[2:])}")
    measured = video.float() if reference is None else video.float() - reference.float()
    axes = enumerate((plan.time, plan.height, plan.width), start=2)
    return max(
        (_ratio(measured, dim, axis) for dim, axis in axes if len(axis.spans) > 1), default=1
    )


def _ratio(video: Tensor, dim: int, axis: Axis) -> float:
    contrast = video.diff(dim=dim).abs().transpose(0, dim).flatten(1).mean(dim=1).cpu()
    edges = {edge for span in axis.spans for edge in (span.target.start, span.target.stop)}
    # Difference i is that of positions i and i + 1.
    is_border = torch.zeros(axis.extent - 1, dtype=torch.bool)
    is_border[[edge - 1 for edge in edges - {0, axis.extent}]] = True
    across, beside = (contrast[mask].mean().item() for mask in (is_border, ~is_border))
    if beside == 0:
        return 1.0 if across == 0 else math.inf
    return across / beside
