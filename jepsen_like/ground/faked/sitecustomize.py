"""Runs first in every Python process under libfaketime: mends what the library breaks.

Up to 0.9.10 libfaketime turns an absolute sleep on the monotonic clock into nonsense when it is
told not to fake that clock (https://github.com/wolfcw/libfaketime/issues/426), and since Python
3.11 `time.sleep` is one: it would raise EINVAL. Waiting for nothing in `select` is as exact.
"""

from __future__ import annotations

import select
import time
from typing import SupportsIndex


def _sleep(seconds: float | SupportsIndex) -> None:
    """As `time.sleep`."""
    left = float(seconds)
    if left < 0:
        raise ValueError("sleep length must be non-negative")
    deadline = time.monotonic() + left  # noqa: TID251 - this stands in for the real one
    left = float(seconds)
    while left >= 0:
        select.select((), (), (), left)
        left = deadline - time.monotonic()  # noqa: TID251
        if not left:
            return


time.sleep = _sleep
