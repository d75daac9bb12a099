"""Which key of a checkpoint is which tensor of the model."""
