"""Checkpoints as they are read: a file for each format."""
