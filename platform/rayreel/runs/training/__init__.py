"""Training runs: opened, validated and reported."""
