"""Leases in Redis: one server, Sentinel or Cluster."""
