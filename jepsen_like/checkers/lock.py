"""Locks held by sessions, with fencing tokens.

Vocabulary. A session's id never comes twice; the id is in every value, because a worker may go on
with its session under a new process number.

* `acquire`: invocation `{"lock": name, "session": id}`; OK `{"lock", "session", "token": int}`. The
  token is the lock key's LockIndex, read back (linearizably) with the key still held by the session
  before the operation completes. FAIL: somebody else holds it, or it is in its lock delay. A worker
  does not acquire what it holds, but may repeat an acquire that ended INFO with the same session.
* `release`: `{"lock", "session", "token"}`. OK: it was held and is free. FAIL: the session did not
  hold it any more. Lock keys are never deleted (sessions of behavior "release"): tokens only rise.
* `renew`: `{"session"}`. OK: the session is alive. FAIL: it is gone (404).
* `destroy`: `{"session", "delay_s": number}`: the session is destroyed, most often while it holds a
  lock; `delay_s` is its lock delay (0 for none). OK: it is gone.
* `guarded`: `{"lock", "session", "token"}`, a write to the resource that the lock protects. The
  resource is a key whose value names the highest token it has seen: the client reads it
  (linearizably), gives up with FAIL when that is higher than its own, and else writes its own token
  by check-and-set at the ModifyIndex that it read. OK: accepted; `raft_index` of the completion is
  that of the write, where known. FAIL: refused (also a check-and-set that did not hold). Workers go
  on trying `guarded` with tokens of locks that they have lost: that is the point.

`final`: for each lock, after everything is healed, a new session does `acquire` with `"final": true`
in the value of the invocation, tried again until it is OK; sessions of dead workers have TTLs that
end within the runner's patience.

Rules:

* stale-token: the resource accepts no token after it accepted a higher one (in the order of
  `raft_index`, and in real time where that is missing).
* token-twice: two sessions never get the same token of a lock.
* token-backwards: who acquires after another had acquired gets a higher token.
* two-holders: a lock is not acquired by a second session while the first holds it and lives: shown
  by a `renew` of the first that began after the second had acquired and was OK, or by its `release`
  that was OK and began after that, though it never gave the lock back before.
* lock-delay: a lock whose holder was destroyed is not acquired before `delay_s` has passed since the
  destruction began.
* stuck-lock: the last final acquire of each lock is OK.
"""
