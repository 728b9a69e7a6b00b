"""The keys by which WeChat Pay's signatures are verified: one map from serial to key.

Three modes. *Public key*: one key, `PUB_KEY_ID_…`, which never changes. *Platform certificates*:
given beforehand, or fetched; the gateway puts the next one into the list 24 hours before it signs
by it. *Both*, while a merchant migrates: answers follow the request's `Wechatpay-Serial`, notices
come signed by either. Sources: APIv3, "获取平台证书列表" (ask at least every 12 hours; a changed
`expire_time` announces a change) and "如何从平台证书切换成微信支付公钥".

Certificates are fetched by whichever thread needs them, never more than one at a time and at most
once a minute: a callback under a made-up serial must not become a request per callback.
"""

import os
import re
import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

import structlog
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

from shop.clock import Clock
from shop.gateways.strangers import strangers_turn
from shop.gateways.transport import TransportFault

REFRESH_EVERY: Final = timedelta(hours=8)
"""Less than the twelve hours that the gateway asks for, so that one failure does not break it."""

EXPIRY_MARGIN: Final = timedelta(hours=24)
"""The next certificate is in the list this long before the present one ends."""

MIN_INTERVAL: Final = timedelta(minutes=1)
"""Between two fetches, whatever asked for them."""

EXPIRY_INTERVAL: Final = timedelta(hours=1)
"""Between two fetches of which each found nothing newer, though the newest ends soon."""

FETCH_PATIENCE_S: Final = 20.0
"""How long a thread that cannot go on without certificates waits for the one that fetches."""

NO_CERTIFICATES: Final = "no_certificates"

_CERTIFICATE_SERIAL = re.compile(r"[0-9A-Fa-f]{1,40}")

log = structlog.get_logger("payonce.gateways")


@dataclass(frozen=True, kw_only=True)
class PlatformCertificate:
    """One platform certificate: its key, and when that may be used."""

    serial: int
    key: RSAPublicKey
    starts_at: datetime
    ends_at: datetime

    @classmethod
    def of(
        cls, certificate: x509.Certificate, *, retired_at: datetime | None = None
    ) -> "PlatformCertificate":
        """Raises ValueError for a certificate that the gateway cannot have signed by.

        `retired_at`, if it comes before the certificate's own end, ends it earlier.
        """
        key = certificate.public_key()
        if not isinstance(key, RSAPublicKey) or key.key_size < 2048:
            raise ValueError("its key is not RSA of at least 2048 bits")
        ends_at = certificate.not_valid_after_utc
        return cls(
            serial=certificate.serial_number,
            key=key,
            starts_at=certificate.not_valid_before_utc,
            ends_at=min(ends_at, retired_at or ends_at),
        )

    def valid(self, now: datetime) -> bool:
        """Whether it may be used now."""
        return self.starts_at <= now <= self.ends_at


class PlatformKeys:
    """Which key belongs to a serial. Thread-safe, and safe across fork.

    Until `fetch_by` is called, nothing is fetched.
    """

    def __init__(
        self,
        *,
        public_key_id: str,
        public_key: RSAPublicKey | None,
        given: Iterable[PlatformCertificate],
        clock: Clock,
    ) -> None:
        self.public_key_id = public_key_id
        self._public_key = public_key
        self._given = {one.serial: one for one in given}
        self._fetched: Mapping[int, PlatformCertificate] = {}
        self._clock = clock
        self._fetch: Callable[[], Iterable[PlatformCertificate]] | None = None
        self._tried_at: datetime | None = None
        self._fetched_at: datetime | None = None
        self._turn_of_pid = (os.getpid(), threading.Lock())

    def fetch_by(self, fetch: Callable[[], Iterable[PlatformCertificate]]) -> None:
        """Let certificates be asked for by `fetch`, which raises TransportFault where it fails."""
        self._fetch = fetch

    def make_ready(self) -> None:
        """Before a request: see that its answer can be verified.

        Raises TransportFault `no_certificates` (nothing was sent) where it could not.
        """
        if self._public_key is not None:
            return
        if self._is_due():
            self._refresh(0)
        if not self._any_valid():
            self._refresh(FETCH_PATIENCE_S)
        if not self._any_valid():
            raise TransportFault(
                NO_CERTIFICATES,
                "no platform certificate is valid now, and none could be fetched",
                sent=False,
            )

    def key_of_answer(self, serial: str) -> RSAPublicKey | None:
        """The key that a serial names, if we have it or can have it now."""
        return self._key_of(serial, self._refresh)

    def key_of_notice(self, serial: str) -> RSAPublicKey | None:
        """The same for what anybody may have sent: waits for no other thread."""
        return self._key_of(serial, self._refresh_for_a_notice)

    def _key_of(self, serial: str, refresh: Callable[[float], None]) -> RSAPublicKey | None:
        if self._public_key is not None and serial == self.public_key_id:
            return self._public_key
        if _CERTIFICATE_SERIAL.fullmatch(serial) is None:
            return None
        number = int(serial, 16)
        if self._is_due():
            refresh(0)
        if self._valid(number) is None:
            refresh(FETCH_PATIENCE_S)
        found = self._valid(number)
        return None if found is None else found.key

    def key_among(self, serial: str, fetched: Iterable[PlatformCertificate]) -> RSAPublicKey | None:
        """As `key_of_answer`, for the answer that brings `fetched` itself. Fetches nothing."""
        if self._public_key is not None and serial == self.public_key_id:
            return self._public_key
        if _CERTIFICATE_SERIAL.fullmatch(serial) is None:
            return None
        brought = {one.serial: one for one in fetched}
        number = int(serial, 16)
        found = brought.get(number) or self._valid(number)
        return None if found is None else found.key

    def _valid(self, number: int) -> PlatformCertificate | None:
        for known in (self._fetched, self._given):
            found = known.get(number)
            if found is not None and found.valid(self._clock.now()):
                return found
        return None

    def _any_valid(self) -> bool:
        now = self._clock.now()
        return any(
            one.valid(now) for known in (self._fetched, self._given) for one in known.values()
        )

    def _is_due(self) -> bool:
        """Whether it is time to ask anew; whoever comes meanwhile goes on with what there is."""
        fetched_at = self._fetched_at
        if self._fetch is None or fetched_at is None:
            return False
        now = self._clock.now()
        age = abs(now - fetched_at)
        ends_at = max((one.ends_at for one in self._fetched.values()), default=now)
        return age >= REFRESH_EVERY or (ends_at - now < EXPIRY_MARGIN and age >= EXPIRY_INTERVAL)

    def _refresh_for_a_notice(self, _wait_s: float) -> None:
        with strangers_turn() as ours:
            if ours:
                self._refresh(0)

    def _refresh(self, wait_s: float) -> None:
        """Fetch, unless that was tried a moment ago; wait so long for a thread that is at it.

        What there was stays if it fails; the fault goes to the log.
        """
        fetch, turn, begun = self._fetch, self._turn(), self._tried_at
        if fetch is None or not turn.acquire(timeout=wait_s):
            return
        try:
            now = self._clock.now()
            tried_at = self._tried_at
            # Another thread fetched while we waited, or it is too soon. A clock that was set back
            # must not put the next try far off: hence the distance, not the age.
            if tried_at != begun or (tried_at is not None and abs(now - tried_at) < MIN_INTERVAL):
                return
            self._tried_at = now
            brought = {one.serial: one for one in fetch() if one.valid(now)}
            if not brought:
                raise TransportFault("bad_answer", "no certificate in the list is valid now")
            self._fetched, self._fetched_at = brought, now
        except TransportFault as error:
            log.warning("wechatpay_certificates_not_fetched", code=error.code, detail=error.detail)
        finally:
            turn.release()

    def _turn(self) -> threading.Lock:
        pid, turn = self._turn_of_pid
        if pid != os.getpid():
            # Inherited over a fork it might be held by a thread that is not here.
            turn = threading.Lock()
            self._turn_of_pid = (os.getpid(), turn)
        return turn
