"""Compare MLX's values with PyTorch's and reach a verdict."""
