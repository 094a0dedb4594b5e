"""Whether a tree could be served: looked at before a hundred gigabytes are moved, wherever it lies.

Only headers, small files and the beginnings of the others are read; nothing of the tree is executed or unpickled.
"""

from longshore.check.findings import CODES, Code, Finding, Report, Severity
from longshore.check.inspection import check

__all__ = ["CODES", "Code", "Finding", "Report", "Severity", "check"]
