"""Benchmarks of real clusters on this machine: `python -m bench`."""
