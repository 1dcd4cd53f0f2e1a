#!/usr/bin/env python3
"""A handler for `raftreg watch`: writes the passing instances of a service to a file.

It gets what the HTTP API answers as JSON on stdin. Only the standard library is needed.
"""

import json
import os
import sys
from pathlib import Path


def main() -> None:
    """Writes one host:port a line, as a whole or not at all."""
    target = Path(sys.argv[1])
    lines = []
    for row in json.load(sys.stdin):
        service, node = row["Service"], row["Node"]
        lines.append(f"{service['Address'] or node['Address']}:{service['Port']}\n")
    new = target.with_name(f"{target.name}.new")
    new.write_text("".join(sorted(lines)))
    new.replace(target)
    sys.stderr.write(f"{len(lines)} backends at index {os.environ['RAFTREG_INDEX']}\n")


if __name__ == "__main__":
    main()
