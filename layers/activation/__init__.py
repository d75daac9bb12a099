"""Activations and dropout."""
