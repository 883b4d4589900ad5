"""A report as one page that needs nothing besides itself."""

from __future__ import annotations

from ._diff import ReportDiff
from ._report import Report


def page(report: Report | ReportDiff) -> str:
    """The page."""
    return str(report)
