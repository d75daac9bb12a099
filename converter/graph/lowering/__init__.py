"""From the captured graph to the IR."""
