"""Parity: is the MLX model as close to the truth as PyTorch is?"""
