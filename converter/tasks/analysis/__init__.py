"""Tell what a conversion makes of a model: what is covered, and each module in full."""
