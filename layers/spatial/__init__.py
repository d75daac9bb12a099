"""Padding, resampling, grid sampling, im2col and pixel shuffling, channels last."""
