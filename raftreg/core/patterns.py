"""Regular expressions of clients, by RE2: their time grows only with the text. Pure.

See https://github.com/google/re2/wiki/Syntax and docs/adr/0010-filters-by-re2.md.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, Final

import re2

from raftreg.errors import InvalidRequest

PATTERN_MEMORY_BYTES_MAX: Final = 1 << 20
_SHOWN_CHARS_MAX: Final = 200


@lru_cache(maxsize=256)
def compile_pattern(text: str) -> Any:
    """Compiles an expression; the last ones are kept.

    Raises:
        InvalidRequest: It can't be compiled, or would need too much memory.
    """
    options = re2.Options()
    options.max_mem = PATTERN_MEMORY_BYTES_MAX
    options.log_errors = False
    try:
        return re2.compile(text, options)
    except re2.error as error:
        reason = error.args[0].decode() if isinstance(error.args[0], bytes) else str(error)
        shown = text[:_SHOWN_CHARS_MAX]
        raise InvalidRequest(f'Failed to compile regular expression "{shown}": {reason}') from error
