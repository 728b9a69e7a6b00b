"""The payment gateways' sandbox: alone, it makes what is missing, says where everything is, and
serves.
"""

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
from sandbox.keys import DEFAULT_MERCHANT, BadName, Places, ensure_keys, ensure_merchant

THREADS = 16
DEFAULT_PORT = 8001


def main() -> int:
    """Run one command; 0 when it worked, 2 when the call was wrong."""
    arguments = _parser().parse_args()
    try:
        if arguments.command == "keys":
            return _keys(arguments.data, arguments.base_url, arguments.merchant)
        _serve(arguments)
    except (ConfigError, BadName) as error:
        print(error, file=sys.stderr)
        return 2
    except OSError as error:
        print(f"{error}: give --data a folder that can be written.", file=sys.stderr)
        return 2


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m sandbox", description=__doc__)
    _serving(parser, {})
    commands = parser.add_subparsers(dest="command", metavar="{keys,serve}")
    keys = commands.add_parser("keys", help="make a merchant's keys and settings, if missing")
    keys.add_argument("--data", type=Path, default=Path(DEFAULT_DATA))
    keys.add_argument("--base-url", default=DEFAULT_PUBLIC_URL)
    keys.add_argument("--merchant", default=DEFAULT_MERCHANT, metavar="NAME")
    serve = commands.add_parser("serve", help="the same as no command at all")
    # What is not given here keeps what was given before the command, or the default.
    _serving(serve, {"default": argparse.SUPPRESS})
    return parser


def _serving(parser: argparse.ArgumentParser, default: dict[str, str]) -> None:
    env = os.environ
    options: list[tuple[str, dict[str, object]]] = [
        ("--data", {"type": Path, "default": Path(env.get("SANDBOX_DATA", DEFAULT_DATA))}),
        ("--port", {"type": int, "default": DEFAULT_PORT}),
        ("--base-url", {"default": env.get("SANDBOX_PUBLIC_URL")}),
        ("--time-scale", {"default": env.get("SANDBOX_TIME_SCALE", str(DEFAULT_TIME_SCALE))}),
        ("--seed", {"default": env.get("SANDBOX_SEED", "")}),
    ]
    helps = {
        "--data": "keys and books; default: var/sandbox",
        "--port": f"on 127.0.0.1; default: {DEFAULT_PORT}",
        "--base-url": "what QR codes and settings begin with; default: http://127.0.0.1:PORT",
        "--time-scale": "of what the gateways schedule; default: 0.1, a tenth of real time",
        "--seed": "numbers, nonces and tokens follow from it",
    }
    for name, keywords in options:
        parser.add_argument(name, help=helps[name], **{**keywords, **default})  # type: ignore[arg-type]


def _keys(data: Path, base_url: str, merchant: str) -> int:
    config = SandboxConfig(data=data, public_url=base_url)
    ensure_keys(config.data, config.base_url)
    ensure_merchant(config.data, config.base_url, merchant)
    print(Places(data=data, name=merchant).env)
    return 0


def _serve(arguments: argparse.Namespace) -> NoReturn:
    """Become gunicorn, so that signals reach it."""
    try:
        scale = float(arguments.time_scale)
    except ValueError:
        raise ConfigError(f"--time-scale {arguments.time_scale!r}: give a number.") from None
    if not 0 < arguments.port < 65_536:
        raise ConfigError(f"--port {arguments.port}: give a number from 1 to 65535.")
    config = SandboxConfig(
        data=arguments.data,
        public_url=arguments.base_url or f"http://127.0.0.1:{arguments.port}",
        time_scale=scale,
        seed=arguments.seed or None,
    )
    ensure_keys(config.data, config.base_url)
    _say(config)
    env = {
        **os.environ,
        "SANDBOX_DATA": str(config.data),
        "SANDBOX_PUBLIC_URL": config.public_url,
        "SANDBOX_TIME_SCALE": str(config.time_scale),
        "SANDBOX_SEED": config.seed or "",
    }
    command = [sys.executable, "-m", "gunicorn", "--worker-class", "gthread", "--workers", "1"]
    command += ["--threads", str(THREADS), "--bind", f"127.0.0.1:{arguments.port}"]
    # Alipay calls may come as one long GET; gunicorn's default line of 4094 is short for that.
    command += ["--limit-request-line", "8190", "--graceful-timeout", "10"]
    command += ["--no-control-socket", "sandbox.wsgi:app"]
    os.execve(sys.executable, command, env)  # noqa: S606 - no shell is what we want


def _say(config: SandboxConfig) -> None:
    """Where everything is, for whoever started it by hand."""
    env = Places(data=config.data, name=DEFAULT_MERCHANT).env
    lines = (
        ("Pages", f"{config.base_url}/  (portals, faults, cashiers)"),
        ("WeChat Pay", f"{config.base_url}/v3/…"),
        ("Alipay", f"{config.base_url}/gateway.do"),
        ("A shop's settings", str(env)),
        ("Documentation", "docs/sandbox.md"),
    )
    print("The payment gateways' sandbox. No real money moves; for your own machine only.")
    for name, value in lines:
        print(f"  {name + ':':<19} {value}")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
