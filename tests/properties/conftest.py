"""Shared machines are slow at times: an example has no deadline."""

from hypothesis import settings

settings.register_profile("rayreel", deadline=None)
settings.load_profile("rayreel")
