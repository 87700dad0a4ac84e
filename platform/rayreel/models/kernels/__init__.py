"""Arithmetic that has a kernel of its own on CUDA, each beside the same in PyTorch."""
