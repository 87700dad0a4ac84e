"""Fine-tunes a model on a dataset, on the cluster that the job runs on.

    ray job submit --working-dir . -- python jobs/finetune.py manifests/train.yaml \
        --output s3://bucket/runs/fox --set workers.num_workers=8

The exit code is 0 once all steps are done, 2 if the spec or the cluster is wrong. Submitting it
again goes on from the last checkpoint.
"""

import typer

from rayreel.cli.train import train_command
from rayreel.logs import setup_logging


def main() -> None:
    """Parse the command line and run the job."""
    setup_logging("WARNING")
    typer.run(train_command)


if __name__ == "__main__":
    main()
