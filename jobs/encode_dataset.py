"""Encodes a list of clips into a dataset, on the cluster that the job runs on.

    ray job submit --working-dir . -- python jobs/encode_dataset.py manifests/dataset.yaml \
        --output s3://bucket/datasets/foxes

The exit code is 0 if all rows are in the dataset or were dropped by a rule, 1 if some failed, 2 if
the spec or the cluster is wrong, 3 if more failed than the error budget allows. Submitting it again
finishes what was interrupted, and encodes what has changed.
"""

import typer

from rayreel.cli.data import encode_command
from rayreel.logs import setup_logging


def main() -> None:
    """Parse the command line and run the job."""
    setup_logging("WARNING")
    typer.run(encode_command)


if __name__ == "__main__":
    main()
