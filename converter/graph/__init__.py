"""Whole models: capture by torch.export, axis order of every value, Python source."""
