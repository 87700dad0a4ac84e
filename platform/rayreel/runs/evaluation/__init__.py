"""What an evaluation is made of: its scenes, judging clips, the autoencoders, and the reports."""
