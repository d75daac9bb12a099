"""Convolutions and transposed convolutions, channels last."""
