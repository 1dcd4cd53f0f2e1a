"""The consensus room: PySyncObj in a safety envelope (start at `api.py`, then `node.py`)."""

import socket

# PySyncObj replaces `socket.inet_ntop` for the whole process by one for Windows that fails
# everywhere else (pysyncobj/win_inet_pton.py): it is imported here first, and that is undone.
_inet_ntop = socket.inet_ntop
import pysyncobj  # noqa: E402, F401 - between the two lines on purpose

socket.inet_ntop = _inet_ntop
