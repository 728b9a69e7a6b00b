"""The application for gunicorn and the `flask` command, configured by the environment."""

import click

from config.settings import SettingsError
from locks import LockConfigError
from shop.app import create_app

try:
    app = create_app()
except (SettingsError, LockConfigError) as error:
    # To gunicorn an exception is the end; a worker that exits by itself it would start for ever.
    if click.get_current_context(silent=True) is None:
        raise
    click.echo(f"Error: {error}", err=True)
    raise SystemExit(2) from None
