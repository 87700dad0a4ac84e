"""Edits to a ``LatentState`` before it is denoised; new tokens only ever go to the end."""
