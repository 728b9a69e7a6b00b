"""Where a cashier page leads the browser when it is done; coming back there proves nothing."""

from urllib.parse import urlsplit

from sandbox import alipay_certs, alipay_pages
from sandbox.core import Sandbox
from sandbox.trades import ALIPAY, Trade

# WeChat Pay H5 takes the address with the page's own; longer ones are none.
MAX_ADDRESS = 2_048


def way_back(box: Sandbox, trade: Trade, redirect_url: str, now: int) -> str:
    """The merchant's address, "" where there is none.

    At WeChat Pay it stands behind the address of the page (H5, "redirect_url"); at Alipay it was
    given with the payment, for after paying and for turning away (WAP, `quit_url`).
    """
    if trade.channel != ALIPAY:
        return redirect_url if is_address(redirect_url) else ""
    if trade.state != "paid":
        return trade.quit_url
    keys = box.merchants.of(trade.merchant)
    signer = alipay_certs.signer(keys, certified=trade.certified, now=now)
    return alipay_pages.return_address(trade, keys.identity, signer, now)


def is_address(text: str) -> bool:
    """Whether a browser may be led there: http or https, with a host."""
    try:
        parts = urlsplit(text)
        return len(text) <= MAX_ADDRESS and parts.scheme in {"http", "https"} and bool(parts.netloc)
    except ValueError:
        return False
