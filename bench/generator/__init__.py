"""The load generator: a process of its own, so that its work is nobody's but its own.

`python -m bench.generator` reads a job as JSON from stdin and writes a tally as JSON to stdout.
`jobs` says what both are; `closed_loop` sends HTTP requests, `watching` holds blocking queries,
`questions` sends DNS queries; `requests` builds the bytes of all of them beforehand.
"""
