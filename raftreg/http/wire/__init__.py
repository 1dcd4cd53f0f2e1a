"""The short way: hot requests answered from bytes, in front of aiohttp (docs/adr/0011)."""
