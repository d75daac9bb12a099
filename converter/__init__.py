"""From a PyTorch model or checkpoint to an MLX one."""
