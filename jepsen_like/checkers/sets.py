"""The set: elements are added, each once; what was acknowledged is there from then on.

Vocabulary:

* `add`: value int, unique in the run. OK acknowledged, FAIL definitely not added, INFO unknown.
* `read`: linearizable (default or consistent); result a list of ints in any order.

Rules: a read shows only what somebody added (and not what definitely failed), no element twice; it
shows every element whose add was acknowledged, or that another read had shown, before it began. The
workload reads at the end, when all adds are over (several times, on several servers): without such
a final read nothing is known about the last adds, and the verdict is UNKNOWN.
"""
