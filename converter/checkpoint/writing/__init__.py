"""Files as they are written: streamed, sharded, atomic."""
