"""Fine-tuning: what is learned, from which samples, and the loop; knows nothing of Ray."""
