"""Watches: whoever follows changes sees them in order, none lost and none twice.

Vocabulary. `modify_index` is the registry's index of the write that is shown.

* `write`: key, value int, unique for its key; OK has `raft_index`, the key's ModifyIndex. In the
  part for prefixes each write makes a new key. For feeds it registers a service instance: the key
  is its id and the value is in its metadata.
* `watch-prefix` (key: the prefix), `watch-key` (key: the key): one blocking query. The invocation's
  value is `{"watcher": name, "since": index, "wait_s": seconds}`; the watcher is the logical one: it
  stays while its process number changes, and it watches one thing with one kind. `since` is the
  index of its last answer, 0 at the beginning. OK: the value is a list of `[key, value,
  modify_index]`, those with a modify_index above `since`, by modify_index; `[]` when the wait ended
  without news. `raft_index` is the X-Consul-Index of the answer, the next `since`. Any server may be
  asked. A lost answer is FAIL; the watcher then repeats with the same `since`.
* `watch-feed` (key null): one turn at the stream /v1/internal/view, from `since` on: it is opened (or
  kept open), and some frames are read. The value is a list of `[key, value, modify_index]` of the
  service rows of this workload, in the order in which they came; `raft_index` is the index of the
  last frame read whole (deltas, or a beat), the next `since`. Rows of a content sent anew after
  "reset" are given as they come, if their modify_index is above `since`.

At the end each watcher watches (`final`) until it has reached the index of the last write or an
answer brings nothing new.

Rules, for each watcher, over its OK answers in order:

* index-backwards: the index of an answer is never below `since`.
* watch-order: modify_index rises strictly through all answers: nothing old, nothing out of order.
* watch-twice: no write is shown twice.
* watch-phantom: what is shown was written, under that index if the write was acknowledged, and the
  write did not definitely fail.
* watch-lost: an answer of index `i` shows every acknowledged write of `since` < modify_index <= `i`
  to what is watched; for a single key it is enough that it shows a later one: it may leave out
  values that were overwritten.
* watch-late: no answer comes more than `LATE_S` after a write that ends the wait was acknowledged,
  while no fault was active and its `wait_s` was longer. (A wake-up that is lost shows only so.)

Who was not at the end of the last acknowledged write with the final answers: watch-behind.
"""
