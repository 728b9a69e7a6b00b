"""Payonce: a points-and-cash shop whose checkout cannot take the same money twice.

`shop.app.create_app` makes the application; nothing happens at import.
"""
