"""Batch, instance, group, layer, RMS and local response normalisation, channels last."""
