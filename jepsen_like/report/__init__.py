"""What a person reads after a run: HTML files made of the record alone.

`write(folder)` makes the report of one run, `matrix_index(folder)` the page of many.
"""

from jepsen_like.report.matrix import matrix_index
from jepsen_like.report.page import write

__all__ = ["matrix_index", "write"]
