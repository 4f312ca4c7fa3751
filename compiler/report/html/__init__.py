"""`report.html`: a page of its own, made from what `report.json` holds and nothing else."""

from __future__ import annotations

from shrinkc.compiler.report.html.page import html_report

__all__ = ["html_report"]
