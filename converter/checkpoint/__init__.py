"""Checkpoints on disk: reading PyTorch's formats, writing safetensors."""
