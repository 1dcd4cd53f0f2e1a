"""Faults, each with the proof that it acted."""
