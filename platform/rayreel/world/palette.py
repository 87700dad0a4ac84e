"""The look and the pitch of names: colours in sRGB, radii, frequencies."""

from rayreel.world.scene import Background, Colour, Size

RGB: dict[Colour, tuple[int, int, int]] = {
    "red": (224, 40, 40),
    "orange": (240, 120, 20),
    "yellow": (240, 234, 40),
    "green": (40, 170, 70),
    "blue": (50, 90, 230),
    "purple": (150, 60, 210),
    "pink": (240, 90, 185),
}
"""Colours of things: their hues are at least 26 degrees apart."""

BACKGROUND_RGB: dict[Background, tuple[int, int, int]] = {
    "black": (18, 18, 18),
    "grey": (128, 128, 128),
    "white": (240, 240, 240),
    "brown": (124, 84, 48),
}
"""Colours of backgrounds: far from those of all things."""

RADIUS: dict[Size, float] = {"small": 0.11, "medium": 0.145, "large": 0.19}
"""Of a circle, as shares of the frame's shorter side; other shapes look about as large."""

PITCH_HZ: dict[Colour, float] = {
    "red": 400.0,
    "orange": 500.0,
    "yellow": 600.0,
    "green": 700.0,
    "blue": 900.0,
    "purple": 1100.0,
    "pink": 1300.0,
}
"""Frequency of the tone of a colour.

All are multiples of the rate of mel frames, 100 Hz: frames of a steady tone are alike, so a
convolutional vocoder can play only what repeats with every frame. Overtones of one stay a semitone
or more away from all others, so that none hides in another.
"""
