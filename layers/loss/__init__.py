"""Loss functions and their modules."""
