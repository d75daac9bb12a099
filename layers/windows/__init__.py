"""Windows over spatial axes: their geometry and how they are taken."""
