"""Renders a prompt list on the cluster that the job runs on.

    ray job submit --working-dir . -- python jobs/render_prompts.py manifests/demo.yaml \
        --output s3://bucket/runs/demo

The exit code is 0 if every row has a clip, 1 if some rows failed, 2 if the spec or the cluster is
wrong, 3 if more rows failed than the error budget allows. Submitting it again finishes what was
interrupted.
"""

import typer

from rayreel.cli.jobs import render_command
from rayreel.logs import setup_logging


def main() -> None:
    """Parse the command line and run the job."""
    setup_logging("WARNING")
    typer.run(render_command)


if __name__ == "__main__":
    main()
