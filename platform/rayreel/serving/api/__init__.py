"""The HTTP API: OpenAI's names and shapes, over jobs in a database."""

from rayreel.serving.api.app import create_api

__all__ = ["create_api"]
