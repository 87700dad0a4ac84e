"""Videos as they are meant to be seen: phones store them lying down, with a note on how to turn."""

from typing import NamedTuple, cast

import av
import numpy as np
from av.sidedata.sidedata import SideDataContainer
from numpy.typing import NDArray


class Orientation(NamedTuple):
    """How stored pixels become the picture: rows and columns swapped, then mirrored.

    Attributes:
        transposed: Whether rows and columns change places.
        mirrored_x: Whether left and right change places then.
        mirrored_y: Whether top and bottom change places then.
    """

    transposed: bool
    mirrored_x: bool
    mirrored_y: bool

    @classmethod
    def of(cls, frame: av.VideoFrame) -> "Orientation":
        """What the display matrix of a decoded frame asks for, to the nearest quarter turn."""
        try:
            # Not the frame's own list: that and the frame hold each other, and with them the pixels
            # of every frame until the garbage collector runs.
            data = SideDataContainer(frame).get("DISPLAYMATRIX")  # type: ignore[call-arg]
        except ValueError:
            # PyAV lists nothing beside a kind of data that it does not know, such as Exif. It still
            # tells the angle, but not whether the picture is mirrored too.
            quarters = round(frame.rotation / 90) % 4
            return cls(quarters in (1, 3), mirrored_x=quarters >= 2, mirrored_y=quarters in (1, 2))
        if data is None:
            return cls(False, mirrored_x=False, mirrored_y=False)
        # A stored pixel (x, y) is shown at (a x + c y, b x + d y).
        a, b, _, c, d = np.frombuffer(bytes(data), np.int32)[:5].tolist()
        if abs(b) > abs(a):
            return cls(True, mirrored_x=c < 0, mirrored_y=b < 0)
        return cls(False, mirrored_x=a < 0, mirrored_y=d < 0)

    def upright(self, pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Stored pixels ``(H, W)`` or ``(H, W, C)`` as they are seen: a view of them."""
        if self.transposed:
            pixels = pixels.swapaxes(0, 1)
        return pixels[:: -1 if self.mirrored_y else 1, :: -1 if self.mirrored_x else 1]


def upright_size(frame: av.VideoFrame) -> tuple[int, int]:
    """Width and height of a frame as it is seen."""
    if Orientation.of(frame).transposed:
        return frame.height, frame.width
    return frame.width, frame.height


def upright_pixels(frame: av.VideoFrame) -> NDArray[np.uint8]:
    """RGB ``(H, W, 3)`` of a frame as it is seen."""
    pixels = cast("NDArray[np.uint8]", frame.to_ndarray(format="rgb24"))
    return Orientation.of(frame).upright(pixels)
