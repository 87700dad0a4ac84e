"""Networks that learn from scratch, each by itself, from clips of the drawn world."""
