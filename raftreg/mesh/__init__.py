"""Decisions about calls between services, as pure machines.

Nothing here reads a clock, draws a number or opens a connection: time comes in as seconds of a
monotonic clock (`now_s`), chance as a `random.Random`, and what happened to a call as an `Outcome`.
The sidecar, the Python client and the tests run the same machines.
"""
