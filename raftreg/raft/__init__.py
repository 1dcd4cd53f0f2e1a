"""The consensus room: PySyncObj in a safety envelope (start at `api.py`, then `node.py`)."""
