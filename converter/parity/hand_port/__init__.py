"""Verify MLX models that were ported by hand."""
