"""The service as an application for Ray Serve.

On a laptop, with the tiny model:

    serve run serve.app:app
    serve run serve.app:app output=/data/clips placement=split
    serve run serve/development.yaml

On a cluster, whose nodes have the package installed:

    serve deploy serve/production.yaml
"""

from rayreel.serving.app import app

__all__ = ["app"]
