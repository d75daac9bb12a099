"""PyTorch's side: the runs that make a reference."""
