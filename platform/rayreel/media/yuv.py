"""RGB to YUV as H.264 stores it: BT.709, limited range, 4:2:0.

Our own conversion rather than swscale's: the numbers must not depend on how ffmpeg was built.
"""

import torch
import torch.nn.functional as F
from torch import Tensor


def rgb_to_i420(frame: Tensor) -> Tensor:
    """Convert one frame; values are truncated to integers.

    Args:
        frame: RGB ``uint8`` ``(H, W, 3)`` with even H and W.

    Returns:
        ``uint8`` ``(3 H / 2, W)``: the plane Y, then U and V at half the size, one after the other.

    Reference:
        Rec. ITU-R BT.709-6, section 3, with coefficients rounded to four digits.
    """
    height, width, _ = frame.shape
    red, green, blue = (frame.float() / 255).unbind(-1)
    luma = 0.2126 * red + 0.7152 * green + 0.0722 * blue
    # As differences of channels, so that rounding cannot tint a grey.
    chroma = torch.stack(
        (
            0.1146 * (blue - red) + 0.3854 * (blue - green),
            0.4542 * (red - green) + 0.0458 * (red - blue),
        )
    )
    planes = (luma * 219 + 16, F.avg_pool2d(chroma, 2) * 224 + 128)
    flat = torch.cat([plane.flatten() for plane in planes])
    return flat.clamp(0, 255).to(torch.uint8).reshape(height * 3 // 2, width)
