"""From noise to latents: schedules, steps, guidance and the loop, over any denoiser."""
