"""Array operations of PyTorch that MLX lacks or computes differently: functions only."""
