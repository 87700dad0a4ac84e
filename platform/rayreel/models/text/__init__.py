"""Prompts to the embeddings that the transformer attends to."""
