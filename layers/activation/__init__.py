"""Activation functions and dropout, as functions and as layers."""
