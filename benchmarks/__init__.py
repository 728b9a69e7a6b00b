"""Benchmarks: what the shop costs beside the least that the same rows can cost."""
