"""Callbacks of the gateways: verified, stored once, then applied."""
