"""Models ported by hand, held to PyTorch."""
