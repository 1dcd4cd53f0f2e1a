"""Hosts, the network between them, their disks and clocks; all gone when the run ends."""
