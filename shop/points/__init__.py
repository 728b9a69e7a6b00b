"""The double-entry ledger of points and cash."""
