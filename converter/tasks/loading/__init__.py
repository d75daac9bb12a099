"""Load a checkpoint into the torch model it is for, as PyTorch does."""
