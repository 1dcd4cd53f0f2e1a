"""Recorded histories of other systems: formats and models."""
