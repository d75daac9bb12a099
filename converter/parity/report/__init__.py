"""The parity report: as data, text, Markdown and a page."""
