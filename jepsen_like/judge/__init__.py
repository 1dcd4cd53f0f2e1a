"""Recorded histories, of other systems and our own: read, whatever their format, and decided."""

from jepsen_like.judge.judging import Judgement, judge, main

__all__ = ["Judgement", "judge", "main"]
