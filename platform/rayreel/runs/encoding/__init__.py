"""What an encode job is made of: its rows, what is decided about them, and the passes."""
