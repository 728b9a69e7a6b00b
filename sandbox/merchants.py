"""The merchants that this sandbox knows, by name and by their numbers."""

import threading
from pathlib import Path

from sandbox import certificates, clock, keys
from sandbox.keys import DEFAULT_MERCHANT, Keys


class UnknownMerchant(LookupError):
    """There is no merchant of this name."""


class Merchants:
    """Every merchant's keys, kept in memory. Thread-safe.

    One that another process made (`python -m sandbox keys --merchant`) is found when it is first
    asked for.
    """

    def __init__(self, data: Path, base_url: str) -> None:
        self._data = data
        self._base_url = base_url
        self._guard = threading.Lock()
        self._known = {DEFAULT_MERCHANT: keys.ensure_keys(data, base_url)}
        self._look()

    def _look(self) -> None:
        with self._guard:
            for name in keys.names(self._data):
                if name not in self._known:
                    self._known[name] = keys.ensure_merchant(self._data, self._base_url, name)

    def all(self) -> list[Keys]:
        """In the order of their names, `default` first."""
        self._look()
        found = sorted(self._known.items(), key=lambda one: (one[0] != DEFAULT_MERCHANT, one[0]))
        return [known for _, known in found]

    def of(self, name: str) -> Keys:
        """By name. Raises UnknownMerchant."""
        if name not in self._known:
            self._look()
        try:
            return self._known[name]
        except KeyError:
            raise UnknownMerchant(f"there is no merchant {name!r}") from None

    def add(self, name: str) -> Keys:
        """Make it, or give it where it is known. Raises keys.BadName."""
        made = keys.ensure_merchant(self._data, self._base_url, name)
        with self._guard:
            return self._known.setdefault(name, made)

    def by_mchid(self, mchid: str) -> Keys | None:
        """By the number at WeChat Pay."""
        return self._by("mchid", mchid)

    def by_appid(self, appid: str) -> Keys | None:
        """By the application at WeChat."""
        return self._by("appid", appid)

    def by_alipay_app_id(self, app_id: str) -> Keys | None:
        """By the application at Alipay."""
        return self._by("alipay_app_id", app_id)

    def _by(self, field: str, value: str) -> Keys | None:
        def find() -> Keys | None:
            known = list(self._known.values())
            return next((one for one in known if getattr(one.identity, field) == value), None)

        found = find()
        if found is None:
            self._look()
            found = find()
        return found

    def rotate_wechatpay(
        self, name: str, *, effective_in_s: float = 0, life_s: int = certificates.LIFE_S
    ) -> Keys:
        """The next platform certificate: listed at once, signed with after `effective_in_s`."""
        return self._rotated(name, keys.rotate_wechatpay, effective_in_s, life_s)

    def rotate_alipay(
        self, name: str, *, effective_in_s: float = 0, life_s: int = certificates.LIFE_S
    ) -> Keys:
        """The next Alipay certificate, signed with after `effective_in_s`."""
        return self._rotated(name, keys.rotate_alipay, effective_in_s, life_s)

    def _rotated(
        self, name: str, rotate: keys.Rotation, effective_in_s: float, life_s: int
    ) -> Keys:
        self.of(name)
        start_ms = clock.now_ms() + round(effective_in_s * 1_000)
        rotate(self._data, name, start_ms, life_s)
        fresh = keys.load(self._data, name)
        with self._guard:
            self._known[name] = fresh
        return fresh
