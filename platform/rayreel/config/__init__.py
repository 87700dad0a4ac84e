"""Every value that a person can write, and the architectures that weight files declare."""
