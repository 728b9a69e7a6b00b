"""Leases in the files of one host."""
