"""What the data really is: storage, broken values, duplicates, shared pixels, shared slides, triggers, labels."""

from pcam.audit.findings import ISSUES, Findings, tied_to
from pcam.audit.report import AuditReport, audit

__all__ = ["ISSUES", "AuditReport", "Findings", "audit", "tied_to"]
