"""Compares our networks with diffusers', and memory with and without tiles, on this machine.

    python jobs/bench.py manifests/bench/cpu.yaml

Prints one JSON line per result. Both sides of a comparison run by turns in one process, so that the
ratio holds on any machine. Needs the `dev` extra, which has diffusers.
"""

import json
from pathlib import Path

import typer
from tqdm import tqdm

from rayreel.config.load import load_spec
from rayreel.runs.bench import BenchSpec, run


def main(spec: Path) -> None:
    """Make the comparisons of a spec.

    Example: python jobs/bench.py manifests/bench/cpu.yaml
    """
    bench = load_spec(spec, BenchSpec)
    for results in tqdm(run(bench), total=len(bench.cases), unit="case"):
        for line in results:
            print(json.dumps(line), flush=True)


if __name__ == "__main__":
    typer.run(main)
