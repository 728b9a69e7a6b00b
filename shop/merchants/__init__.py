"""Merchants: whose accounts at the gateways take the money for which goods."""
