"""Loss functions, as functions and as layers."""
