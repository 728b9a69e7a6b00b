"""A real Redis whose clock can be set while it runs, by libfaketime (its README, "Advanced")."""

from pathlib import Path

from tests.processes import MissingProgram
from tests.services import RedisServer

# Where Debian and its kin keep it, and where `make install` of its source puts it.
_PLACES = ("/usr/lib/*/faketime", "/usr/lib64/faketime", "/usr/local/lib/faketime")
_CLOCK_FILE = "clock"
# jemalloc asks for the time while it starts, before libfaketime can tell it, and the two wait for
# each other for ever. glibc's own malloc, which this library of glibc offers, stands in its place.
_PLAIN_MALLOC = "libc_malloc_debug.so.0"


class ClockedRedis(RedisServer):
    """A RedisServer at the host's time; `set_clock` steps it. Restarted, it keeps the step."""

    offset_s = 0
    """How far its clock is ahead of the host's; negative: behind."""

    def prepare(self) -> None:
        """Write the file that libfaketime reads at each look at the clock."""
        self.set_clock(self.offset_s)

    def set_clock(self, offset_s: int) -> None:
        """Step the server's wall clock to so many seconds from the host's."""
        self.offset_s = offset_s
        new = self.folder / f"{_CLOCK_FILE}.new"
        new.write_text(f"{offset_s:+d}\n")
        new.replace(self.folder / _CLOCK_FILE)

    def environment(self) -> dict[str, str]:
        """The wall clock is faked; the monotonic one, by which Redis times its own work, is not."""
        return super().environment() | {
            "LD_PRELOAD": f"{_libfaketime()}:{_PLAIN_MALLOC}",
            "FAKETIME_TIMESTAMP_FILE": str(self.folder / _CLOCK_FILE),
            "FAKETIME_NO_CACHE": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        }


def _libfaketime() -> Path:
    for place in _PLACES:
        for found in sorted(Path("/").glob(f"{place[1:]}/libfaketime.so.1")):
            return found
    raise MissingProgram(
        "libfaketime is not installed. Run `make test`, which installs what is missing, "
        "or scripts/install_system.sh."
    )
