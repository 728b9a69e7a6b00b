"""The application for gunicorn and the `flask` command, configured by the environment."""

from shop.app import create_app

app = create_app()
