"""Load balancing: one module a policy."""
