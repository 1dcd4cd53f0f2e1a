"""The catalog: what was registered is found everywhere soon after the faults are over.

Vocabulary. The key is the instance's id, unique over all nodes.

* `register`: value `{"passing": true|false|null}`: how it counts afterwards; null where the
  registration leaves the status as it was. OK: acknowledged by where it was registered.
* `deregister`: value null.
* `health`: value `{"passing": true|false}`. FAIL also when there is no such instance.
* `look` (node: where it is asked): invocation `{"via": "http"|"dns", "level": "default"|"stale",
  "final": true|false}`; agents answer from their view: "stale". The result of `http` is the sorted
  list of `[instance, passing]` of all instances; that of `dns` the same with the passing ones only.
  FAIL: no answer.

Final looks: after everything is healed, every place (node and via) is asked again and again, until
more than `SETTLE_S` (10 s) after the last fault was healed and the last change ended, and at least
once after that.

Rules:

* phantom: no look shows an instance whose registration had not begun.
* stale-look: a look of level "default" shows each instance as the operations can have left it at
  some moment of the look: it misses nothing that was acknowledged before it began.
* diverged: the first look of each place that begins `SETTLE_S` after the end of faults and changes,
  and all later ones, show for each instance something that the operations can have left; and the
  same at every place. Not one such look at a place that was asked at all: UNKNOWN.
* no-answer: a final look after that time is answered.

An operation of unknown outcome may have taken effect, or not; at the end all places must agree on
which.
"""
