"""MLX layers that MLX lacks or computes differently from PyTorch."""
