"""Weight files: reading, naming, building, adapters."""
