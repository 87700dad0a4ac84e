"""Plans before anything is spent: costs of stages, actors, batch sizes, and what a run comes to."""
