"""How the layers compute on the CPU and on a GPU: where both ways are right, and where one is."""
