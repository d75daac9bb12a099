"""On which sizes of its inputs a captured program depends, by its ops and by what Python read."""
