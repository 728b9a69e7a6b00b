"""`python -m sandbox keys` makes the keys; `python -m sandbox serve` runs the sandbox."""

import argparse
import os
import sys
from pathlib import Path
from typing import NoReturn

from sandbox.config import (
    DEFAULT_DATA,
    DEFAULT_PUBLIC_URL,
    DEFAULT_TIME_SCALE,
    ConfigError,
    SandboxConfig,
)
from sandbox.keys import ensure_keys

THREADS = 16


def main() -> int:
    """Run one command; 0 when it worked, 2 when the call was wrong."""
    arguments = _parser().parse_args()
    try:
        if arguments.command == "keys":
            return _keys(arguments.data, arguments.base_url)
        _serve(arguments)
    except ConfigError as error:
        print(error, file=sys.stderr)
        return 2


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m sandbox", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    keys = commands.add_parser("keys", help="make keys and merchant.env, unless they are there")
    keys.add_argument("--data", type=Path, default=Path(DEFAULT_DATA))
    keys.add_argument("--base-url", default=DEFAULT_PUBLIC_URL)
    serve = commands.add_parser("serve", help="run the sandbox under gunicorn on 127.0.0.1")
    serve.add_argument("--data", type=Path, default=Path(DEFAULT_DATA))
    serve.add_argument("--port", type=int, default=8001)
    serve.add_argument("--base-url", default=None, help="default: http://127.0.0.1:PORT")
    serve.add_argument(
        "--time-scale",
        type=float,
        default=float(os.environ.get("SANDBOX_TIME_SCALE", DEFAULT_TIME_SCALE)),
    )
    return parser


def _keys(data: Path, base_url: str) -> int:
    config = SandboxConfig(data=data, public_url=base_url)
    ensure_keys(config.data, config.base_url)
    print(data / "merchant.env")
    return 0


def _serve(arguments: argparse.Namespace) -> NoReturn:
    """Become gunicorn, so that signals reach it."""
    config = SandboxConfig(
        data=arguments.data,
        public_url=arguments.base_url or f"http://127.0.0.1:{arguments.port}",
        time_scale=arguments.time_scale,
    )
    env = {
        **os.environ,
        "SANDBOX_DATA": str(config.data),
        "SANDBOX_PUBLIC_URL": config.public_url,
        "SANDBOX_TIME_SCALE": str(config.time_scale),
    }
    command = [sys.executable, "-m", "gunicorn", "--worker-class", "gthread", "--workers", "1"]
    command += ["--threads", str(THREADS), "--bind", f"127.0.0.1:{arguments.port}"]
    # Alipay calls may come as one long GET; gunicorn's default line of 4094 is short for that.
    command += ["--limit-request-line", "8190", "--graceful-timeout", "10"]
    command += ["--no-control-socket", "sandbox.wsgi:app"]
    os.execve(sys.executable, command, env)  # noqa: S606 - no shell is what we want


if __name__ == "__main__":
    sys.exit(main())
