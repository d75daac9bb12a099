"""Operations on arrays that MLX lacks or computes differently from PyTorch."""
