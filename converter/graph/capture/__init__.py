"""A PyTorch model as torch.export captures it, and what has to be known of it."""
