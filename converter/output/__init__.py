"""The output folder of a conversion: its contents, written whole, loaded again."""
