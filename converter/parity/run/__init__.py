"""Run MLX models and judge their values by a reference."""
