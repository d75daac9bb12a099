"""Dot-product and multi-head attention, and the transformer layers built from them."""
