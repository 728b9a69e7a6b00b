"""`gunicorn --worker-class gthread --workers 1 --threads 16 sandbox.wsgi:app`.

Without `--preload` this is imported in the process that serves, so that the notifier may start
here and go on with what a restart left over, before any request comes.
"""

from sandbox import create_app, sandbox_of

app = create_app()
sandbox_of(app).notifier.ensure_started()
