"""Runs the rounding kernel in Triton's interpreter, for which the environment must ask first.

Reads codes (``weight``, uint8) and deltas (by dtype of the weight) from the first safetensors file
that it is given, and writes the results under the names of the deltas to the second.
"""

import sys

import torch
from safetensors.torch import load_file, save_file

from rayreel.models.kernels.rounding_triton import fused_add_round_

deltas = load_file(sys.argv[1])
codes = deltas.pop("weight")
for name, delta in deltas.items():
    fused_add_round_(delta, codes.view(getattr(torch, name)), 0)
save_file(deltas, sys.argv[2])
