"""Sliding windows over spatial axes: argument checks, output sizes, and slices of windows."""
