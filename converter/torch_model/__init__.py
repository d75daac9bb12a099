"""The user's PyTorch model: how it is made, called and built."""
