"""Convolutions and transposed convolutions in 1, 2 and 3 dimensions, channels last."""
