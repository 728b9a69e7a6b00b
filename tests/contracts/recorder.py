"""Making recordings: a sandbox, and before it a server that writes down what passes."""

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import urllib3

from shop.clock import Clock
from shop.gateways.base import Gateway
from tests.contracts.calls import invoke
from tests.contracts.replay import (
    FOLDER,
    Build,
    FixedClock,
    body_fields,
    contract_headers,
    nonces,
    read_notice,
)
from tests.integration.gateway_server import Reply, Seen, gateway_server
from tests.integration.sandbox_kit import Running, running

# What the web server says of itself, of the connection, or to browsers.
UNRECORDED_ANSWER_HEADERS = {
    *("server", "date", "connection", "content-length", "transfer-encoding"),
    *("cache-control", "content-security-policy", "referrer-policy", "x-content-type-options"),
}


@dataclass
class Recorder:
    """One sandbox, reached through a server that writes down."""

    channel: str
    sandbox: Running
    address: str
    build: Build
    passed: list[dict[str, Any]] = field(default_factory=list)

    @property
    def clock(self) -> Clock:
        """The time now, and from now on for this recording."""
        return FixedClock(datetime.now(UTC).replace(microsecond=0))

    def gateway(self, fields: Mapping[str, Any], clock: Clock) -> Gateway:
        """A gateway as a replay builds it."""
        return self.build(fields, self.address, clock, nonces())

    def record(
        self,
        mode: str,
        name: str,
        fields: Mapping[str, Any],
        call: str,
        arguments: Mapping[str, Any],
    ) -> Any:
        """Make a call through a new gateway and write it down; its result as JSON."""
        clock = self.clock
        gateway = self.gateway(fields, clock)
        self.passed.clear()
        found = invoke(gateway, call, arguments)
        self.write(
            mode,
            name,
            {
                "call": call,
                "arguments": dict(arguments),
                "now": clock.now().isoformat(),
                "address": self.address,
                "exchanges": list(self.passed),
                **found,
            },
        )
        return found["result"]

    def record_notice(
        self,
        mode: str,
        name: str,
        fields: Mapping[str, Any],
        headers: Mapping[str, str],
        body: bytes,
    ) -> None:
        """Write down how a notice is read."""
        clock = self.clock
        notice = {"headers": contract_headers(headers), **body_fields(body)}
        self.passed.clear()
        found = read_notice(self.gateway(fields, clock), notice)
        self.write(
            mode,
            name,
            {
                "call": "read_notice",
                "now": clock.now().isoformat(),
                "address": self.address,
                "notice": notice,
                "exchanges": list(self.passed),
                **found,
            },
        )

    def write(self, mode: str, name: str, content: Mapping[str, Any]) -> None:
        """One file."""
        write_json(FOLDER / self.channel / mode / f"{name}.json", content)


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """A file that a person can read and compare."""
    path.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps(content, ensure_ascii=False, indent=1, sort_keys=True)
    path.write_text(text + "\n", encoding="utf-8")


@contextmanager
def recording(channel: str, data: Path, build: Build, **config: Any) -> Iterator[Recorder]:
    """A recorder before a sandbox that believes to be where the recorder is."""
    with (
        gateway_server() as before,
        running(data, public_url=before.url, **config) as sandbox,
    ):
        recorder = Recorder(channel=channel, sandbox=sandbox, address=before.url, build=build)
        before.script = _passing_on(sandbox.url, recorder.passed)
        yield recorder


def _passing_on(url: str, passed: list[dict[str, Any]]) -> Callable[[Seen], Reply]:
    pool = urllib3.PoolManager(headers={})

    def pass_on(seen: Seen) -> Reply:
        headers = {**seen.headers, "Host": urlsplit(url).netloc}
        answer = pool.request(
            seen.method,
            url + seen.target,
            headers=headers,
            body=seen.body or None,
            retries=False,
            redirect=False,
            decode_content=False,
            timeout=30,
        )
        said = {
            name: value
            for name, value in answer.headers.items()
            if name.lower() not in UNRECORDED_ANSWER_HEADERS
        }
        passed.append(
            {
                "request": {
                    "method": seen.method,
                    "target": seen.target,
                    "headers": contract_headers(seen.headers),
                    **body_fields(seen.body),
                },
                "answer": {"status": answer.status, "headers": said, **body_fields(answer.data)},
            }
        )
        return Reply(status=answer.status, headers=said, body=answer.data)

    return pass_on
