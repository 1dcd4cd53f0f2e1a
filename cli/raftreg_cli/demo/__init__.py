"""`raftreg demo`: a whole mesh on this host, from real processes."""
