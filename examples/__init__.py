"""Runnable examples, each short enough to read in one sitting."""
