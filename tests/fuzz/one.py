"""`python -m tests.fuzz.one TARGET SECONDS CORPUS CRASHERS`: fuzzes one target; never returns.

Everything is imported under instrumentation, so nothing of ours may be imported before it.
"""

from __future__ import annotations

import sys

import atheris

with atheris.instrument_imports(include=["raftreg", "dns"]):
    from tests.fuzz import targets


def main() -> None:
    """Hands over to libFuzzer, which ends the process."""
    name, seconds, corpus, crashers = sys.argv[1:]
    options = [
        f"-max_total_time={seconds}",
        f"-max_len={targets.INPUT_BYTES_MAX}",
        "-timeout=5",
        "-rss_limit_mb=2048",
        f"-artifact_prefix={crashers}/",
        corpus,
    ]
    atheris.Setup([sys.argv[0], *options], lambda data: targets.run(name, data))
    atheris.Fuzz()


main()
