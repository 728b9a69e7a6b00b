"""Ways to make a request that repeats have one effect, each a component of its own."""
