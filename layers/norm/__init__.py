"""Normalisation, and the statistics it rests on."""
