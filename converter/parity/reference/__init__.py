"""Run torch models and record the references MLX is judged by."""
