"""Configuration of the shop: `settings` is the whole of it, read once at start."""
