"""Padding, resampling, folding, grids: layers that move positions."""
