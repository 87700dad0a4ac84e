"""How much memory the video VAE needs while it computes, besides weights and inputs.

The numbers count the tensors that are alive at the worst moment of a forward pass without
gradients, for one clip. They leave out what kernels allocate inside and what the allocator keeps.

Letters: C channels, F frames, H height, W width.
"""

import math
from dataclasses import dataclass, replace

from rayreel.config.model import VideoVAEBlock, VideoVAEConfig
from rayreel.models.video_vae.ops import STRIDES, Stride


def decode_bytes(
    config: VideoVAEConfig, frames: int, height: int, width: int, itemsize: int
) -> int:
    """Peak of the decoder.

    Args:
        config: Architecture.
        frames: Of the clip that it makes.
        height: In pixels.
        width: In pixels.
        itemsize: Bytes of an element of weights and activations.
    """
    reflected = config.decoder_padding == "reflect"
    channels = config.decoder_base_channels * math.prod(
        _divisor(block) for block in config.decoder_blocks
    )
    latent = _Activation(
        config.latent_channels,
        (frames - 1) // config.time_factor + 1,
        height // config.space_factor,
        width // config.space_factor,
    )
    x = replace(latent, channels=channels)
    # Its own input is the latent with its statistics applied.
    peak = latent.elements + latent.conv(channels, reflected=reflected)
    for block in reversed(config.decoder_blocks):
        after = x
        match block.name.split("_"):
            case ["res", "x"]:
                needed = x.residual(x.channels, block.num_layers, reflected=reflected)
            case ["res", "x", "y"]:
                after = replace(x, channels=x.channels // _divisor(block))
                needed = x.residual(after.channels, 1, reflected=reflected)
            case ["compress", axes]:
                stride = STRIDES[axes]
                after = x.spread(stride, x.channels // _divisor(block))
                residual = block.residual and axes == "all"
                needed = x.upsampling(after, reflected=reflected, residual=residual)
            case _:
                needed = x.attention()
        peak, x = max(peak, needed), after
    pixels = config.out_channels * config.patch_size**2
    last = x.elements + x.conv(pixels, reflected=reflected)
    # Unpacking the patches copies the video, converting its dtype copies it once more.
    peak = max(peak, last, 3 * replace(x, channels=pixels).elements)
    return peak * itemsize


def encode_bytes(
    config: VideoVAEConfig, frames: int, height: int, width: int, itemsize: int
) -> int:
    """Peak of the encoder; arguments as of ``decode_bytes``, of the clip that it reads."""
    reflected = config.encoder_padding == "reflect"
    patches = _Activation(
        config.in_channels * config.patch_size**2,
        frames,
        height // config.patch_size,
        width // config.patch_size,
    )
    x = replace(patches, channels=config.latent_channels)
    peak = patches.elements + patches.conv(x.channels, reflected=reflected)
    for block in config.encoder_blocks:
        wider = x.channels * (block.multiplier or 2)
        after = x
        match block.name.split("_"):
            case ["res", "x"]:
                needed = x.residual(x.channels, block.num_layers, reflected=reflected)
            case ["res", "x", "y"]:
                after = replace(x, channels=wider)
                needed = x.residual(wider, 1, reflected=reflected)
            case ["compress", axes, "res"]:
                after = x.packed(STRIDES[axes], wider)
                needed = x.downsampling(after, STRIDES[axes], reflected=reflected)
            case ["compress", axes, *rest]:
                after = x.packed(STRIDES[axes], wider if rest else x.channels)
                needed = x.elements + x.padded(reflected=reflected) + after.elements
            case _:
                needed = x.attention()
        peak, x = max(peak, needed), after
    last = 2 * x.elements + x.conv(2 * config.latent_channels, reflected=reflected)
    return max(peak, last) * itemsize


def _divisor(block: VideoVAEBlock) -> int:
    """What a block of the decoder divides the width by."""
    return block.multiplier or (2 if block.name == "res_x_y" else 1)


@dataclass(frozen=True, slots=True)
class _Activation:
    """Extents of a hidden state, and the elements that layers need beside each other.

    Attributes:
        dropped: Frames that were cut off its start, but share its memory.
    """

    channels: int
    frames: int
    height: int
    width: int
    dropped: int = 0

    @property
    def elements(self) -> int:
        """Of the tensor."""
        return self.channels * self.frames * self.height * self.width

    @property
    def stored(self) -> int:
        """Of the tensor and what shares its memory."""
        return self.elements + self.channels * self.dropped * self.height * self.width

    def padded(self, *, reflected: bool) -> int:
        """The copy that a convolution reads, longer in time, and larger in space if reflected."""
        margin = 2 if reflected else 0
        frames, height, width = self.frames + 2, self.height + margin, self.width + margin
        return self.channels * frames * height * width

    def conv(self, channels: int, *, reflected: bool) -> int:
        """A convolution without its input: the padded copy and the result."""
        return self.padded(reflected=reflected) + replace(self, channels=channels).elements

    def residual(self, channels: int, num_layers: int, *, reflected: bool) -> int:
        """Residual blocks: beside the second one's tensors there is still the first one's input."""
        inside = replace(self, channels=channels, dropped=0)
        first = self.conv(channels, reflected=reflected)
        second = inside.elements + inside.conv(channels, reflected=reflected)
        if num_layers > 1:
            return self.stored + inside.elements + second
        shortcut = 0 if channels == self.channels else self.elements + 2 * inside.elements
        return self.stored + max(first, second, shortcut)

    def spread(self, stride: Stride, channels: int) -> "_Activation":
        """State after positions are unpacked from channels."""
        time, rows, columns = stride
        return _Activation(
            channels,
            self.frames * time - (time - 1),
            self.height * rows,
            self.width * columns,
            dropped=time - 1,
        )

    def upsampling(self, after: "_Activation", *, reflected: bool, residual: bool) -> int:
        """Convolution to as many elements as the result has, which unpacking copies."""
        conv = self.padded(reflected=reflected) + after.stored
        unpacked = after.stored + max(after.stored, self.elements if residual else 0)
        return self.stored + max(conv, unpacked)

    def packed(self, stride: Stride, channels: int) -> "_Activation":
        """State after positions are packed into channels."""
        time, rows, columns = stride
        frames = (self.frames - 1) // time + 1
        return _Activation(channels, frames, self.height // rows, self.width // columns)

    def downsampling(self, after: "_Activation", stride: Stride, *, reflected: bool) -> int:
        """Input packed and averaged to a skip, then a convolution, which is packed and added."""
        longer, repeated = self, 0
        if stride[0] == 2:
            longer = replace(self, frames=self.frames + 1)
            repeated = longer.elements
        skip = repeated + longer.elements + after.elements
        conv = longer.padded(reflected=reflected) + after.elements
        return self.stored + skip + max(conv, 2 * after.elements)

    def attention(self) -> int:
        """Within frames: queries, keys and values, and their scores.

        A head is too wide for the kernels that store none; from half precision, the scores are
        widened to float32 on the way.
        """
        scores = self.frames * (self.height * self.width) ** 2
        return self.stored + 5 * self.elements + 5 * scores
