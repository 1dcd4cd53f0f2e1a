"""The bank: money moves between accounts, none is made and none is lost.

Vocabulary:

* `total`: OK value is the opening balances `{"0": 10, "1": 10}` or their sum, an int. Optional and
  at most once, before the first transfer; without it the first read tells the sum.
* `transfer`: value `{"from": "0", "to": "1", "amount": 5}`, in one transaction. FAIL: it definitely
  did not happen (the balance was too small, or another transfer came in between). INFO: unknown.
* `read`: linearizable, all accounts in one transaction; result `{"0": 5, "1": 15}`.

Rules: the sum never changes, no balance is negative, no account comes or goes. And each balance is
one that the transfers can have left: with those that were acknowledged before the read began, and
any of those that were under way or are unknown. So a lost transfer, one that took effect twice and
a stale read show, though the sum is right. The workload reads when all transfers are over; without
that the verdict is UNKNOWN.
"""
