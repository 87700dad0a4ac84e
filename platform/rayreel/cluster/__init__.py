"""The one place, with serving, that imports Ray."""
