"""The agent of raftreg: one on every host."""
