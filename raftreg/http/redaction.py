"""Secrets that must not reach a log: fields by their names, tokens in texts. Pure."""

from __future__ import annotations

import re

_NAME = re.compile(r"(?:^|_|-)(?:token|secret|secret_id|password|authorization|encrypt_key)$", re.I)
#: `?token=…` of an address, and the headers that carry a token.
_IN_TEXT = re.compile(
    r"(?i)((?:[?&;]|\\u0026)token=|x-consul-token['\"]?\s*[:=,]\s*(?:b?['\"])?"
    r"|authorization['\"]?\s*[:=,]\s*(?:b?['\"])?(?:bearer|basic)?\s*|\bbearer\s+)"
    r"[^\s&;,'\"\\<>]+"
)
HIDDEN = "<redacted>"


def is_secret(name: str) -> bool:
    """Tells whether a field of this name holds a secret."""
    return _NAME.search(name) is not None


def without_secrets(text: str) -> str:
    """A text without the tokens that a request may have brought into it."""
    return _IN_TEXT.sub(rf"\1{HIDDEN}", text)
