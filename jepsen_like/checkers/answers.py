"""Agents' answers while the servers are out of reach: the last view, with its age, never nothing.

Vocabulary. The key is the instance's id; all instances are of one service.

* `register`: value `{"via": "server"|"agent", "steady": true|false}`, node: who was asked. Via a
  server the instance is on an external node (no host whose lease could end) and passing. Via an
  agent it is on that agent's host; OK means that the agent accepted it, perhaps cut off.
  "steady": it is never deregistered. Steady instances registered through servers come first.
* `deregister`: of instances that are not steady; value `{"via": …}`.
* `look` (node: the agent): invocation `{"via": "stale"|"cached"|"dns", "final": true|false}`. OK:
  `{"instances": [[id, passing], …] sorted, "age_s": number|null}`; by DNS the passing ones only, and
  `age_s` null (DNS can't tell it). `age_s` is what the answer says of its age
  (X-Consul-LastContact, or Age). FAIL: no answer, or an error.

Final looks as in `catalog`: each agent (stale and DNS) is asked until more than `SETTLE_S` after the
end of faults and changes, and at least once after that.

Rules, for each agent:

* forgotten: what an agent has shown once and is steady and registered through a server stays in all
  its later answers, passing.
* no-answer: an agent that has answered before answers every look, except while a fault names it.
* no-age: an answer by HTTP tells its age.
* age-untrue: an answer that misses an instance registered through a server, acknowledged more than
  `LAG_S` before the look began, says that it is at least that old, less `LAG_S`.
* not-arrived: `SETTLE_S` after the end, every answer shows all that was registered and not
  deregistered, through agents that were cut off, too.

No acknowledged registration, or no look at all, or no final look of an agent: UNKNOWN.
"""
