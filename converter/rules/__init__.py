"""Layer rules: a torch.nn class to its MLX layer and the plan of its tensors."""
