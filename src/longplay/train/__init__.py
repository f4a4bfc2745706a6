"""Training: one loop, four stages."""
