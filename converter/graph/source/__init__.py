"""From the IR to the text of ``model.py``."""
