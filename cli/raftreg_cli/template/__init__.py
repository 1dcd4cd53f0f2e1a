"""`raftreg template`: files that follow the registry.

Reading order: `spec` (what was asked for), `queries` (what a template can ask of the registry),
`engine` (a template and answers in, text and questions out; no I/O), `follow` (keeps answers
current), `files`, and `loop`, which brings them together.
"""
