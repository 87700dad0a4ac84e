"""Logging setup, called by entry points only."""

import logging


def setup_logging(level: int | str = logging.INFO) -> None:
    """Send log lines of this package to stderr, with time and level.

    Args:
        level: Threshold as a number or a name such as ``"DEBUG"``.
    """
    logging.basicConfig(
        level=level, format="%(asctime)s %(levelname)s %(name)s: %(message)s", datefmt="%H:%M:%S"
    )
