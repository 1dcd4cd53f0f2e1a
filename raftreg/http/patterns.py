"""Regular expressions of clients, by RE2: their time grows only with the text. Pure.

See https://github.com/google/re2/wiki/Syntax and docs/adr/0010-filters-by-re2.md.
"""

from __future__ import annotations

from typing import Any, Final

import re2

PATTERN_MEMORY_BYTES_MAX: Final = 1 << 20


class PatternError(ValueError):
    """The text is no regular expression, or one that would need too much memory."""


def compile_pattern(text: str) -> Any:
    """Compiles an expression.

    Raises:
        PatternError: It can't be; the text says why.
    """
    options = re2.Options()
    options.max_mem = PATTERN_MEMORY_BYTES_MAX
    options.log_errors = False
    try:
        return re2.compile(text, options)
    except re2.error as error:
        reason = error.args[0].decode() if isinstance(error.args[0], bytes) else str(error)
        raise PatternError(reason) from error
