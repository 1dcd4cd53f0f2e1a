"""The HTTP API of a server, one module a noun."""
