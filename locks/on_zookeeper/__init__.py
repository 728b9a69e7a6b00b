"""Leases in ZooKeeper."""
