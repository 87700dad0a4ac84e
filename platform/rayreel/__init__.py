"""RayReel: LTX-2 audio-video diffusion on a Ray cluster."""
