"""What is asked for: checked, with its files, made whole, named, and what it costs."""
