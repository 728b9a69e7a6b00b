"""The whole shop by one command: `make run`, or `python scripts/run.py`.

Makes what is missing in DATA_DIR (default: var/): the shop's secret key, the sandbox gateways'
keys, the database. Then runs the web server, the sweeper and the sandbox until Ctrl-C. A second
run keeps the data. Everything can be set from outside, by the environment or a file .env; what is
set there wins over the embedded defaults made here.

`python scripts/run.py flask ARGUMENTS…` runs one flask command with the same environment.

All settings are checked, and the database and the lock service asked, before anything is migrated.
A wrong setting, or a service that does not answer within a few seconds, ends the start with one
sentence; nothing is waited for, so that a typing error in an address does not look like patience.

Exit status: 0 ended on request, 1 a service did not answer, or a step or a process failed, 2 it
could not be started as asked.
"""

import os
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from dotenv import dotenv_values

ROOT = Path(__file__).resolve().parents[1]
if str(ROOT) not in sys.path:  # run as a script, only scripts/ is on the path
    sys.path.insert(0, str(ROOT))

from config.settings import SettingsError, load_web_settings  # noqa: E402
from sandbox.config import ConfigError, config_from_env  # noqa: E402
from scripts.place import (  # noqa: E402
    CannotStart,
    Place,
    check_ports,
    hold_folder,
    prepare_folder,
)
from scripts.supervise import Child, Stopped, StopRequest, Supervisor  # noqa: E402

SANDBOX_THREADS = 16
READY_POLL_S = 0.2
# A start that takes longer is not waited for in silence.
READY_PATIENCE_S = 10.0
# The members that `flask seed` makes (shop/commands/seed_data.py; a test compares the two).
SIGN_IN = "alice or bob, password payonce-demo"


class StepFailed(Exception):
    """A step before the start failed; its own output has been shown."""


def main(arguments: list[str]) -> int:
    """Run it; gives the exit status."""
    stop = StopRequest()
    stop.install()
    try:
        outside = {**_env_file(ROOT / ".env"), **os.environ}
        place = Place.from_environment(outside)
        if arguments[:1] == ["flask"]:
            prepare_folder(place)
            env = environment(place, outside, beside_run=True)
            _check(env, "settings")
            return _flask(arguments[1:], env)
        if arguments:
            raise CannotStart("Give no argument, or: flask COMMAND.")
        check_ports(place)
        prepare_folder(place)
        with hold_folder(place):
            env = environment(place, outside)
            _check(env)
            return serve(place, env, stop)
    except Stopped:
        return 0
    except CannotStart as problem:
        print(problem, file=sys.stderr)
        return 2
    except StepFailed as problem:
        print(problem, file=sys.stderr)
        return 1


def environment(
    place: Place, outside: Mapping[str, str], *, beside_run: bool = False
) -> dict[str, str]:
    """The children's environment: the defaults of an embedded run under what is set outside.

    Makes the sandbox's keys and reads the merchant settings that go with them; with `beside_run`
    those of the last run are left as they are. Raises CannotStart where a setting of the web
    server or of the sandbox is wrong.
    """
    data = place.data
    # prometheus-client writes files wherever this is set: only if somebody can ask for them.
    metrics = {"PROMETHEUS_MULTIPROC_DIR": str(data / "metrics")}
    env = {
        **(metrics if outside.get("METRICS_TOKEN") else {}),
        "DATABASE_URL": f"sqlite:///{data / 'payonce.db'}",
        "LOCK_URL": f"file://{data / 'locks'}",
        "PUBLIC_URL": place.own_url,
        "SECRET_KEY": (data / "secret_key").read_text(encoding="utf-8").strip(),
        "SANDBOX_DATA": str(data / "sandbox"),
        "SANDBOX_PUBLIC_URL": place.sandbox_url,
        "PYTHONUNBUFFERED": "1",
        # .env has been read here.
        "FLASK_SKIP_DOTENV": "1",
        **{name: value for name, value in outside.items() if value},
        "HOST": place.host,
        "PORT": str(place.port),
    }
    try:
        load_web_settings(env)
        sandbox = config_from_env(env)
    except (SettingsError, ConfigError) as problem:
        raise CannotStart(str(problem)) from None
    try:
        (ROOT / sandbox.data).mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise CannotStart(
            f"SANDBOX_DATA={sandbox.data}: cannot be made ({error.strerror}); give a folder of "
            "yours, or nothing."
        ) from None
    merchant = ROOT / sandbox.data / "merchant.env"
    # A shop that runs takes merchants' settings anew when they change, and our PORT may differ.
    if not (beside_run and merchant.exists()):
        _step(
            [
                *("-m", "sandbox", "keys", "--data", env["SANDBOX_DATA"]),
                *("--base-url", env["SANDBOX_PUBLIC_URL"]),
            ],
            env,
            "Making the sandbox gateways' keys",
        )
    return {**_env_file(merchant), **env}


def _check(env: Mapping[str, str], *arguments: str) -> None:
    """Let scripts/check.py look. Raises CannotStart or StepFailed with what it says."""
    done = _run(["-m", "scripts.check", *arguments], env)
    if done.returncode == 2:
        raise CannotStart(done.stdout.strip())
    if done.returncode != 0:
        raise StepFailed(done.stdout.strip())


def serve(place: Place, env: Mapping[str, str], stop: StopRequest) -> int:
    """Migrate, seed, then run the three processes to their end; gives the exit status."""
    _step(["-m", "flask", "--app", "wsgi", "db", "upgrade"], env, "Migrating the database")
    _step(["-m", "flask", "--app", "wsgi", "seed"], env, "Seeding the demo shop")
    # A person who changed LOCK_URL since the last run meant it.
    _step(["-m", "flask", "--app", "wsgi", "locks", "adopt"], env, "Adopting the lock service")
    gunicorn = [sys.executable, "-m", "gunicorn"]
    children = [
        Child("web", [*gunicorn, "-c", str(ROOT / "config/gunicorn.conf.py"), "wsgi:app"], env),
        Child("sweeper", [sys.executable, "-m", "flask", "--app", "wsgi", "sweep"], env),
        Child(
            "sandbox",
            [
                *gunicorn,
                *("--bind", f"{place.host}:{place.sandbox_port}", "--no-control-socket"),
                *("--worker-class", "gthread", "--workers", "1"),
                *("--threads", str(SANDBOX_THREADS), "--log-level", "warning"),
                # Alipay requests come as GET; the default line of 4094 bytes is soon full.
                *("--limit-request-line", "8190"),
                "sandbox.wsgi:app",
            ],
            env,
        ),
    ]
    supervisor = Supervisor(children, stop, cwd=ROOT)
    threading.Thread(target=_announce, args=(place, env, supervisor), daemon=True).start()
    return supervisor.run()


def _announce(place: Place, env: Mapping[str, str], supervisor: Supervisor) -> None:
    """When all is ready, say where to go; if that takes long, say what is missing."""
    for url in (f"{place.own_url}/readyz", f"{place.sandbox_url}/"):
        patience = time.monotonic() + READY_PATIENCE_S
        while not (look := _look(url)).ready:
            if time.monotonic() > patience:
                supervisor.say(f"Not ready yet: {look.detail}")
                patience = time.monotonic() + READY_PATIENCE_S
            time.sleep(READY_POLL_S)
    supervisor.say(
        "\n".join(
            [
                "",
                f"The shop is open:   {env['PUBLIC_URL']}",
                f"Sign in as:         {SIGN_IN}",
                "To pay:             the code on the payment page leads to the sandbox cashier,",
                "                    which plays your phone; the link under it does the same",
                f"Sandbox gateways:   {env['SANDBOX_PUBLIC_URL']}",
                f"Your data:          {place.data}",
                "Ctrl-C ends it.",
                "",
            ]
        )
    )


class _Look(NamedTuple):
    ready: bool
    detail: str


def _look(url: str) -> _Look:
    """Whether GET url answers 200, and what it said otherwise. Never by a proxy."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(url, timeout=5) as answer:
            return _Look(answer.status == 200, f"{url} answers {answer.status}")
    except urllib.error.HTTPError as error:
        with error:
            said = error.read(500).decode(errors="replace")
            return _Look(False, f"{url} answers {error.code}: {said}")
    except OSError as error:
        return _Look(False, f"{url}: {error}")


def _env_file(path: Path) -> dict[str, str]:
    """The settings in a KEY=value file; empty if there is none."""
    if not path.exists():
        return {}
    found = dotenv_values(path, interpolate=False)
    return {name: value for name, value in found.items() if value is not None}


def _step(arguments: list[str], env: Mapping[str, str], what: str) -> None:
    """Run one command of ours to its end. Shows its output and raises StepFailed if it fails."""
    done = _run(arguments, env)
    if done.returncode != 0:
        sys.stderr.write(done.stdout)
        raise StepFailed(f"{what} failed (status {done.returncode}), see above.")


def _run(arguments: list[str], env: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    """Run Python with these arguments to its end; what it says comes in `stdout`."""
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=ROOT,
        env=dict(env),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )


def _flask(arguments: list[str], env: Mapping[str, str]) -> int:
    command = [sys.executable, "-m", "flask", "--app", "wsgi", *arguments]
    return subprocess.run(command, cwd=ROOT, env=dict(env), check=False).returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
