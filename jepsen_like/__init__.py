"""Breaks a real raftreg cluster and decides, from the record of its clients alone, what held.

Words and manners are those of Jepsen (https://github.com/jepsen-io/jepsen): a *generator* makes
operations, *clients* invoke them on the cluster, a *nemesis* injects faults, a *history* records
every invocation and completion, and a *checker* judges the history by a *model*.
"""
