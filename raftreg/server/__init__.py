"""A server: HTTP over the replicated registry, leases, the feed of views."""
