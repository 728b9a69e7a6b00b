"""The `flask --app wsgi …` commands, one file each."""

from flask import Flask

from shop.commands.gateways import gateways
from shop.commands.locks import locks
from shop.commands.merchants import merchants
from shop.commands.seed import seed
from shop.commands.states import states
from shop.commands.sweep import sweep


def register_commands(app: Flask) -> None:
    """Add our commands to the application's command line."""
    for command in (gateways, locks, merchants, seed, states, sweep):
        app.cli.add_command(command)
