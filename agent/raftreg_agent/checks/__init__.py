"""Health checks: what is probed, when, and what its results mean."""
