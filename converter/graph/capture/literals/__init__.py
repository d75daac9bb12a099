"""What a captured forward computes of literals alone."""
