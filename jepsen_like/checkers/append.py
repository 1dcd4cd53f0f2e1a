"""List append: transactions over lists, checked for isolation by cycles of dependencies.

After K. Kingsbury and P. Alvaro, "Elle: Inferring Isolation Anomalies from Experimental
Observations", VLDB 2020; the names of the anomalies are Adya's.

Vocabulary:

* `txn`: the invocation's value is a list of steps `["append", key, element]` (int, unique for its
  key in the run) and `["r", key, null]`, done in this order, atomically. An OK completion repeats
  the steps with each read filled in: `["r", key, [1, 2]]`, `[]` for a key that is not there. A read
  shows the appends that stand before it in its own transaction.
* FAIL: it definitely had no effect (a check-and-set within it did not hold). INFO: unknown.

Expected is strict serializability. The workload reads every key at the end, when all transactions
are over; without such a read of a key nothing is known about its last appends: UNKNOWN.
"""
