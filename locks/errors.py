"""The one family of errors of the lease library. Each class's docstring is its message."""


class LockError(Exception):
    """Something went wrong with a lock."""

    def __init__(self, detail: str = "") -> None:
        super().__init__(detail)
        self.detail = detail

    def __str__(self) -> str:
        message = (type(self).__doc__ or "").partition("\n")[0]
        return f"{message} {self.detail}" if self.detail else message


class LockTimeout(LockError):
    """The lock was not granted in time: another holder kept it."""

    def __init__(self, key: str, wait_ms: int) -> None:
        super().__init__(f"Key {key!r}, waited {wait_ms} ms.")
        self.key = key
        self.wait_ms = wait_ms

    def __reduce__(self) -> tuple[type["LockTimeout"], tuple[str, int]]:
        """Pickle by the two attributes, not by the sentence made of them."""
        return type(self), (self.key, self.wait_ms)


class LockUnavailable(LockError):
    """The lock service cannot be reached, or its session is suspended."""


class LeaseLost(LockError):
    """The lease is no longer held, or not for long enough."""


class LockConfigError(LockError, ValueError):
    """LOCK_URL cannot be used."""
