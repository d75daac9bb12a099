"""Publish an output folder: its card, what goes along, the upload."""
