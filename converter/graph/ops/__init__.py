"""Op handlers: an ATen op to the MLX expression that computes it."""
