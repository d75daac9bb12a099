"""MLX's side: the runs that are held to a reference."""
