"""Fine-tunes a model in processes that another launcher starts; Ray is not needed.

    torchrun --nproc-per-node 2 jobs/finetune_launched.py manifests/train.yaml
    accelerate launch --multi_gpu --num_processes 2 jobs/finetune_launched.py manifests/train.yaml

On machines without a GPU both work as well. The same command goes on from the last checkpoint.
"""

from typing import Annotated

import typer

from rayreel.cli.app import Model, Output, Set, exits
from rayreel.logs import setup_logging


@exits
def main(
    spec: Annotated[str, typer.Argument(metavar="SPEC", help="YAML spec, or a dataset")],
    output: Output = None,
    set_: Set = None,
    model: Model = None,
) -> int:
    """Fine-tune a model as one process of several.

    Example: torchrun --nproc-per-node 2 jobs/finetune_launched.py manifests/train.yaml
    """
    from rayreel.requests.spec import read_train_spec  # noqa: PLC0415
    from rayreel.runs.finetune import finetune_launched  # noqa: PLC0415 - see rayreel.cli

    if summary := finetune_launched(read_train_spec(spec, set_ or (), output, model)):
        print(f"{summary}\n{summary.weights}\n{summary.page}")
    return 0


if __name__ == "__main__":
    setup_logging("WARNING")
    typer.run(main)
