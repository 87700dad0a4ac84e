"""What is seen and heard in a clip, from its frames and samples alone."""
