"""What the doctor has found, and its report as text."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from enum import StrEnum

from greendata.errors.plural import counted

__all__ = ("Finding", "Verdict", "has_failures", "report")


class Verdict(StrEnum):
    """How serious a finding is.

    Example:
        >>> Verdict.FAIL == "fail"
        True
    """

    OK = "ok"
    WARN = "warn"  # it works, and may be slow
    FAIL = "fail"  # requests will hang, or fail


@dataclass(frozen=True, slots=True)
class Finding:
    """The result of one check.

    Attributes:
        name: the name of the check.
        verdict: how serious it is.
        text: the result, and what to do about it unless it is ok.
    """

    name: str
    verdict: Verdict
    text: str


def has_failures(findings: Iterable[Finding], *, strict: bool = False) -> bool:
    """Return True if one of *findings* is a failure. The command line then exits with an error.

    Args:
        strict: a warning is a failure too.

    Example:
        >>> has_failures([Finding("hub", Verdict.OK, "it runs")])
        False
    """
    bad = (Verdict.FAIL, Verdict.WARN) if strict else (Verdict.FAIL,)
    return any(finding.verdict in bad for finding in findings)


def report(findings: Collection[Finding]) -> str:
    """Return *findings* as text, one line for each, and a line that counts them.

    Example:
        >>> print(report([Finding("hub", Verdict.OK, "it runs"), Finding("patch", Verdict.WARN, "off")]))
        ok    hub    it runs
        warn  patch  off
        no failures, 1 warning, 1 check is ok
    """
    width = max(len(finding.name) for finding in findings)
    lines = [f"{finding.verdict.value:<4}  {finding.name:<{width}}  {finding.text}" for finding in findings]
    return "\n".join([*lines, _summary(findings)])


def _summary(findings: Collection[Finding]) -> str:
    verdicts = [finding.verdict for finding in findings]
    bad = {"failure": verdicts.count(Verdict.FAIL), "warning": verdicts.count(Verdict.WARN)}
    parts = [counted(count, name) if count else f"no {name}s" for name, count in bad.items()]
    return ", ".join([*parts, counted(verdicts.count(Verdict.OK), "check is ok", "checks are ok")])
