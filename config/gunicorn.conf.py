"""How gunicorn serves the shop: `gunicorn -c config/gunicorn.conf.py wsgi:app`.

Settings from the environment: HOST, PORT, WEB_WORKERS, WEB_THREADS, FORWARDED_ALLOW_IPS.
"""

import os
import sys
from pathlib import Path
from typing import Any

# gunicorn puts the working folder on the path only after it has read this file.
_ROOT = str(Path(__file__).resolve().parents[1])
if _ROOT not in sys.path:
    sys.path.insert(0, _ROOT)

from config.settings import SettingsError, load_web_settings  # noqa: E402 - needs the path

try:
    _web = load_web_settings()
except SettingsError as error:
    # gunicorn would print a traceback round any other exception.
    raise SystemExit(str(error)) from None

bind = f"{_web.host}:{_web.port}"

# Threads, because a payment mostly waits: for the lock, the database, the gateway. Two processes,
# so that one that dies leaves one that answers, and so that nothing in the shop can come to rely
# on there being only one.
worker_class = "gthread"
workers = _web.workers
threads = _web.threads

# Each worker loads the application after the fork: no connection, thread or lease is inherited.
preload_app = False

# A worker whose main loop has not been heard of for this long is killed. It does not bound a
# request: with threads, a slow gateway (bounded by the shop's own time-outs) keeps no loop busy.
timeout = 30

# On SIGTERM running requests may end. The longest legitimate one holds a gateway call of
# connect 3 s + read 8 s; what is cut off later is found and resolved by the sweeper.
graceful_timeout = 12

# Longer than a page's poll interval, so that a watching browser keeps its connection; short,
# because a kept connection of an idle client costs a file descriptor.
keepalive = 5

# The workers' heartbeat is a file; in memory, a stalled disk does not look like a dead worker.
worker_tmp_dir = "/dev/shm" if os.path.isdir("/dev/shm") else None  # noqa: S108 - private file

# The shop writes structured request logs itself, with order code and request id.
accesslog = None
errorlog = "-"
loglevel = "warning"

# X-Forwarded-Proto and its like are believed from nobody unless the operator names the proxy, nor
# is X-Forwarded-For, which the shop reads itself (shop/proxies.py). (Links and cookies follow
# PUBLIC_URL; a proxy needs its entry for WeChat Pay's H5, which asks where the payer is.) Other
# headers that could pose as WSGI variables are dropped.
forwarded_allow_ips = _web.forwarded_allow_ips
forwarder_headers = ""
header_map = "drop"

# gunicorn's control socket would lie in the home folder, one for all instances of a user.
control_socket_disable = True


def post_worker_init(worker: Any) -> None:
    """Tell what is wrong in the configuration and can only be known with the database."""
    application = getattr(worker, "wsgi", None)
    payonce = getattr(application, "extensions", {}).get("payonce")
    if application is not None and payonce is not None:
        with application.app_context():
            payonce.tell_at_start()


def worker_exit(server: Any, worker: Any) -> None:
    """Let go of the locks that this worker holds, stop their threads, close their sessions.

    Without it they would be free only after their lease. It runs in the worker; after SIGKILL it
    does not run at all, and the lease is what frees them.
    """
    application = getattr(worker, "wsgi", None)
    payonce = getattr(application, "extensions", {}).get("payonce")
    if payonce is not None:
        payonce.close()
