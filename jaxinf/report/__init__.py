"""Reports: figures, and one self-contained HTML page. Nothing on the lower floors knows of them."""

from jaxinf.report.html import render_report, write_report
from jaxinf.report.sections import Column, Example, Figure, Passage, Section, Strip, Table

__all__ = [
    "Column",
    "Example",
    "Figure",
    "Passage",
    "Section",
    "Strip",
    "Table",
    "render_report",
    "write_report",
]
