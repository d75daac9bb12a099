"""Folders that say which model they hold: one file per library, and what they have in common."""
