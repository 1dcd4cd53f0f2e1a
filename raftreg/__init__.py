"""A service registry replicated by Raft: servers, and what agents, clients and the CLI share."""
