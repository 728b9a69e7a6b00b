"""A member at a browser, without the browser: cookies, CSRF tokens, and many requests at once."""

import http.client
import json
import re
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from http.cookies import SimpleCookie
from typing import Any
from urllib.parse import urlencode, urlsplit

# No assertion: only so that a server that never answers fails the test and does not hang it.
ANSWER_TIMEOUT_S = 120

_CSRF = re.compile(r'name="csrf_token"[^>]*value="([^"]+)"|value="([^"]+)"[^>]*name="csrf_token"')


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What a server said; header names in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        """The body as JSON."""
        return json.loads(self.body)

    @property
    def code(self) -> str:
        """The stable code of Problem Details; "" where the answer is none."""
        if self.headers.get("content-type") != "application/problem+json":
            return ""
        return str(self.json["code"])


@dataclass(frozen=True, kw_only=True)
class Call:
    """One request to be sent."""

    url: str
    method: str = "POST"
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes | None = None

    def connect(self) -> http.client.HTTPConnection:
        """An open connection to its server."""
        parts = urlsplit(self.url)
        link = http.client.HTTPConnection(
            parts.hostname or "", parts.port, timeout=ANSWER_TIMEOUT_S
        )
        link.connect()
        return link

    def send(self, link: http.client.HTTPConnection | None = None) -> Answer:
        """Send it and read the answer; redirects are not followed."""
        link = link or self.connect()
        parts = urlsplit(self.url)
        target = parts.path + (f"?{parts.query}" if parts.query else "")
        try:
            link.request(self.method, target, body=self.body, headers=dict(self.headers))
            found = link.getresponse()
            headers = {name.lower(): value for name, value in found.getheaders()}
            return Answer(status=found.status, headers=headers, body=found.read())
        finally:
            link.close()


def at_once(calls: Sequence[Call]) -> list[Answer]:
    """Send all calls at the same instant, over connections opened beforehand."""
    gate = threading.Barrier(len(calls))

    def send(call: Call) -> Answer:
        link = call.connect()
        gate.wait(ANSWER_TIMEOUT_S)
        return call.send(link)

    with ThreadPoolExecutor(len(calls)) as threads:
        return list(threads.map(send, calls))


def all_at_once(works: Sequence[Callable[[], object]]) -> list[object]:
    """Run all works at the same instant, each in a thread; an error of one is raised here."""
    gate = threading.Barrier(len(works))

    def run(work: Callable[[], object]) -> object:
        gate.wait(ANSWER_TIMEOUT_S)
        return work()

    with ThreadPoolExecutor(len(works)) as threads:
        return list(threads.map(run, works))


class MemberClient:
    """One signed-in member; the session holds at every process of the shop."""

    def __init__(self, url: str, login: str, password: str) -> None:
        self.url = url
        self._cookies: dict[str, str] = {}
        self._token = ""
        form = {"login": login, "password": password, "csrf_token": self._read_token("/sign-in")}
        answer = self._keep(self._call("POST", "/sign-in", form=form).send())
        assert answer.status == 303, answer
        self._token = self._read_token("/orders")

    def call(
        self,
        path: str,
        form: Mapping[str, str] | None = None,
        *,
        url: str | None = None,
        key: str | None = None,
    ) -> Call:
        """A form of the shop as a program would send it: POST, JSON answers wanted.

        `url` names another process of the shop, `key` the idempotency key.
        """
        headers = {} if key is None else {"Idempotency-Key": key}
        fields = {**(form or {}), "csrf_token": self._token}
        return self._call("POST", path, form=fields, url=url, headers=headers)

    def post(self, path: str, form: Mapping[str, str] | None = None, **more: Any) -> Answer:
        """Send `call` at once."""
        return self.call(path, form, **more).send()

    def pay(self, order_code: str, channel: str, *, key: str, url: str | None = None) -> Call:
        """A pay request."""
        return self.call(f"/orders/{order_code}/pay", {"channel": channel}, url=url, key=key)

    def status(self, order_code: str, *, url: str | None = None) -> Any:
        """How the order's payment stands."""
        return self._call("GET", f"/orders/{order_code}/status", url=url).send().json

    def _call(
        self,
        method: str,
        path: str,
        *,
        form: Mapping[str, str] | None = None,
        url: str | None = None,
        headers: Mapping[str, str] | None = None,
        accept: str = "application/json",
    ) -> Call:
        cookies = "; ".join(f"{name}={value}" for name, value in self._cookies.items())
        all_headers = {"Accept": accept, "Cookie": cookies, **(headers or {})}
        if form is not None:
            all_headers["Content-Type"] = "application/x-www-form-urlencoded"
        return Call(
            url=f"{url or self.url}{path}",
            method=method,
            headers=all_headers,
            body=None if form is None else urlencode(form).encode(),
        )

    def _keep(self, answer: Answer) -> Answer:
        for name, morsel in SimpleCookie(answer.headers.get("set-cookie", "")).items():
            self._cookies[name] = morsel.value
        return answer

    def _read_token(self, path: str) -> str:
        answer = self._keep(self._call("GET", path, accept="text/html").send())
        found = _CSRF.search(answer.body.decode())
        assert found is not None, f"{path} holds no form: {answer}"
        return found[1] or found[2]
