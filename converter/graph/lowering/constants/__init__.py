"""Constants, and what stands for dtypes that MLX has not."""
