"""Benchmarks of real clusters on this machine: `python -m bench`.

`load` is the generator (a process of its own), `cluster` starts servers and agents, each module of
`bench.scenarios` measures one thing, `report` prints it beside the figures of other systems.
"""
