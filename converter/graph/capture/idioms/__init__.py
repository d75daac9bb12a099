"""Idiom recognition: modules that compute a layer of MLX, whatever their class is called."""
