"""What a user may ask for, checked once: of the source, the capture, the judgement, the output."""
