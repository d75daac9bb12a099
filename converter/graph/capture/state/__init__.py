"""What a model keeps from call to call: which buffers it writes, and where."""
