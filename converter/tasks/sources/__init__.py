"""Sources that say what they hold, and many of them at once."""
