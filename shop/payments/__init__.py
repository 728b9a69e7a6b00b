"""Payments: starting one, settling its outcome, asking after the silent ones."""
