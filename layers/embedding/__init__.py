"""Embedding tables: lookup of rows, and reduction of rows by bags."""
