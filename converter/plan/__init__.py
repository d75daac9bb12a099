"""What happens to every tensor, as data: the weight plan, its steps, tensors, the record."""
