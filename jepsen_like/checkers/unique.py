"""Unique ids: no id is given twice.

Vocabulary: `generate`, the OK completion's value is the id (int or text), drawn by one transaction
or check-and-set. FAIL: none was given. INFO: unknown, so its id may be missing for ever.
"""
