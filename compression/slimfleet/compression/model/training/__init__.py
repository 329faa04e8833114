"""Training: the one loop of fine-tuning, and what teachers say."""
