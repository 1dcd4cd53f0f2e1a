"""Checkers: pure functions from a history to a verdict. They know nothing of raftreg."""
