"""A small drawn world with sound: scenes, their captions and clips, and what a clip shows."""
