"""Which lock service the books believe, and what happens while it is away."""
