"""Whole jobs: a spec in, stages wired, a summary out."""
