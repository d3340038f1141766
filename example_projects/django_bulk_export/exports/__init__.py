"""The table of all named Unicode characters, and its exports to CSV."""
