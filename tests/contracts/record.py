"""`python -m tests.contracts.record [channel …]`: make the recordings anew, against the sandbox.

Then read what changed: a difference in a request is a change of what the shop says.
"""

import shutil
import sys
import tempfile
from pathlib import Path

from tests.contracts import alipay, wechatpay
from tests.contracts.replay import FOLDER

CHANNELS = {wechatpay.CHANNEL: wechatpay.record, alipay.CHANNEL: alipay.record}


def main(names: list[str]) -> None:
    """Record the named channels, or all."""
    for name in names or list(CHANNELS):
        shutil.rmtree(FOLDER / name, ignore_errors=True)
        with tempfile.TemporaryDirectory() as folder:
            CHANNELS[name](Path(folder))


if __name__ == "__main__":
    main(sys.argv[1:])
