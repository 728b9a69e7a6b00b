"""Merchants beside the default one: files of the same variables, and who sells which goods."""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from io import StringIO
from pathlib import Path

from dotenv import dotenv_values

from config.gateways import FETCH, AlipaySettings, WeChatPaySettings, load_alipay, load_wechatpay
from config.values import SettingsError, text_in

DEFAULT = "default"
PREFIXES = ("WECHATPAY_", "ALIPAY_")
_NAME = re.compile(r"[a-z0-9-]{1,32}")
_LINE = re.compile(r"[0-9A-Za-z_-]{1,32}")
_VARIABLE = re.compile(r"[A-Z][A-Z0-9_]{0,49}")
_PATH_NAMES = re.compile(r"\w+_FILE|WECHATPAY_PLATFORM_CERTS")


@dataclass(frozen=True, kw_only=True)
class AccountSettings:
    """One merchant's accounts, at one gateway or at both."""

    wechatpay: WeChatPaySettings | None = None
    alipay: AlipaySettings | None = None

    def account_at(self, channel: str) -> str:
        """Which account it is at a gateway, whatever its keys; empty where there is none."""
        one = {"wechatpay": self.wechatpay, "alipay": self.alipay}.get(channel)
        return one.account if one is not None else ""


def is_merchant_name(text: str) -> bool:
    """Whether a merchant can be called so: it stands in addresses and in file names."""
    return _NAME.fullmatch(text) is not None


def gateway_variables(values: Mapping[str, str]) -> dict[str, str]:
    """The variables that tell of accounts at the gateways, but for empty ones."""
    return {
        name: value for name, value in values.items() if name.startswith(PREFIXES) and value.strip()
    }


def load_account(values: Mapping[str, str]) -> AccountSettings:
    """The accounts of a merchant; one of a gateway of which nothing is said is none.

    Raises SettingsError.
    """
    named = {prefix: any(name.startswith(prefix) for name in values) for prefix in PREFIXES}
    if not any(named.values()):
        raise SettingsError(
            "There is no account in it: give the WECHATPAY_ or the ALIPAY_ variables, or both."
        )
    return AccountSettings(
        wechatpay=load_wechatpay(values) if named["WECHATPAY_"] else None,
        alipay=load_alipay(values) if named["ALIPAY_"] else None,
    )


def merchant_file(folder: str, merchant: str) -> Path | None:
    """The file of a merchant's variables, if there is one."""
    if not folder or not is_merchant_name(merchant):
        return None
    path = Path(folder) / f"{merchant}.env"
    return path if path.is_file() else None


def merchants_in(folder: str) -> list[str]:
    """The merchants that have a file there, by name."""
    if not folder:
        return []
    return sorted(path.stem for path in Path(folder).glob("*.env") if is_merchant_name(path.stem))


def read_merchant_file(path: Path) -> dict[str, str]:
    """The variables of one merchant; paths in it are relative to the file. Raises SettingsError."""
    text = text_in(path, "The merchant's file ", "a file of lines NAME=value")
    found: dict[str, str] = {}
    for name, value in dotenv_values(stream=StringIO(text), interpolate=False).items():
        if not _VARIABLE.fullmatch(name):
            # Not quoted: it may be a line of a key.
            raise SettingsError(
                f"{path} holds a line that sets no variable: give lines of NAME=value, and of a "
                "key the path of its file."
            )
        if not name.startswith(PREFIXES):
            raise SettingsError(
                f"{path} sets {name}: a merchant's file holds WECHATPAY_ and ALIPAY_ variables "
                "alone; take it out."
            )
        if value is None:
            raise SettingsError(f"{path}: {name} has no value; write {name}=value.")
        if value.strip() and _names_a_file(name, value):
            value = str(path.parent / value.strip())
        found[name] = value
    return gateway_variables(found)


def default_variables(values: Mapping[str, str], folder: str) -> dict[str, str]:
    """The default merchant's variables: the environment's; a file default.env in the folder of
    the merchants takes the place of those of each gateway that it tells of."""
    found = gateway_variables(values)
    path = merchant_file(folder, DEFAULT)
    if path is None:
        return found
    ours = read_merchant_file(path)
    kept = tuple(one for one in PREFIXES if not any(name.startswith(one) for name in ours))
    return {name: value for name, value in found.items() if name.startswith(kept)} | ours


def files_named(values: Mapping[str, str]) -> list[Path]:
    """The files of key material that these variables name."""
    return [Path(value.strip()) for name, value in values.items() if _names_a_file(name, value)]


def look_of(path: Path) -> tuple[str, int, int, int] | tuple[str]:
    """What changes when a file is replaced or written; also tells that there is none."""
    try:
        found = os.stat(path)
    except (OSError, ValueError):  # ValueError: of a zero byte in it
        return (str(path),)
    return (str(path), found.st_mtime_ns, found.st_size, found.st_ino)


def merchant_lines(values: Mapping[str, str], name: str) -> dict[str, str]:
    """Merchants by product line, from `books=press,tea=garden`. Raises SettingsError."""
    found: dict[str, str] = {}
    for text in (values.get(name) or "").split(","):
        if not text.strip():
            continue
        line, _, merchant = (part.strip() for part in text.partition("="))
        if not _LINE.fullmatch(line) or not is_merchant_name(merchant):
            raise SettingsError(
                f"{name}: {text.strip()!r} is not read; give pairs of product line and merchant "
                "with commas between them, as in books=press,tea=garden."
            )
        if line in found:
            raise SettingsError(f"{name} names the line {line} twice: leave one of them out.")
        found[line] = merchant
    return found


def merchant_name(values: Mapping[str, str], name: str, default: str) -> str:
    """One merchant. Raises SettingsError, also where there certainly is none of this name."""
    text = (values.get(name) or "").strip() or default
    if not is_merchant_name(text):
        raise SettingsError(
            f"{name}={text!r}: a merchant's name is of 1 to 32 small letters, digits and hyphens."
        )
    folder = (values.get("MERCHANTS_DIR") or "").strip()
    is_stored = bool((values.get("CREDENTIALS_KEY") or "").strip())
    if text != DEFAULT and not is_stored and merchant_file(folder, text) is None:
        raise SettingsError(
            f"{name}={text!r}: there is no such merchant; put {text}.env into MERCHANTS_DIR, or "
            "set CREDENTIALS_KEY where it is stored in the database."
        )
    return text


def merchants_folder(values: Mapping[str, str], name: str) -> str:
    """The folder of the merchants' files, if there is one. Raises SettingsError."""
    text = (values.get(name) or "").strip()
    if text and not Path(text).is_dir():
        raise SettingsError(f"{name}={text!r}: there is no such folder; make it, or leave it out.")
    return text


def _names_a_file(name: str, value: str) -> bool:
    return _PATH_NAMES.fullmatch(name) is not None and value.strip() != FETCH
