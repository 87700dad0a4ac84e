"""Image, video and audio files to tensors and back."""
