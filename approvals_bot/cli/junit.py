"""JUnit XML of policy tests, for the pages on which CI systems show what failed."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import UTC, datetime
from xml.etree import ElementTree  # it only writes here

from approvals_bot.service.policy_tests import CaseResult, FileResult

_UNPRINTABLE = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""What XML 1.0 can't contain, not even escaped."""


def junit_xml(results: Sequence[FileResult]) -> bytes:
    """Return the results as JUnit XML: a suite for each file, with all attributes that the strict schema asks for."""
    root, moment = ElementTree.Element("testsuites"), datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S")
    for number, result in enumerate(results):
        broken = sum(bool(case.broken) for case in result.cases)
        failed = sum(not case.passed for case in result.cases) - broken
        package, _, name = result.workflow.rpartition("/")
        suite = ElementTree.SubElement(
            root,
            "testsuite",
            {"name": name, "package": package, "id": str(number), "timestamp": moment, "hostname": "localhost"}
            | {"tests": str(len(result.cases)), "failures": str(failed), "errors": str(broken), "time": "0"},
        )
        ElementTree.SubElement(suite, "properties")
        for case in result.cases:
            _add(suite, result, case)
        covered = f"{len(result.coverage) - len(result.missed)} of {len(result.coverage)} rules and stages met"
        missed = f"; not met: {', '.join(result.missed)}" if result.missed else ""
        ElementTree.SubElement(suite, "system-out").text = _printable(covered + missed)
        ElementTree.SubElement(suite, "system-err")
    ElementTree.indent(root)
    written: bytes = ElementTree.tostring(root, encoding="utf-8", xml_declaration=True)
    return written + b"\n"


def _add(suite: ElementTree.Element, result: FileResult, case: CaseResult) -> None:
    about = {"name": _printable(case.name), "classname": result.workflow.replace("/", "."), "time": "0"}
    element = ElementTree.SubElement(suite, "testcase", about)
    if case.broken:
        error = ElementTree.SubElement(element, "error", {"message": _printable(case.broken), "type": "broken"})
        error.text = _printable("\n".join([f"{result.file}:{case.line}: {case.name}: {case.broken}", *case.timeline]))
    elif not case.passed:
        first = _printable(str(case.failures[0]))
        failure = ElementTree.SubElement(element, "failure", {"message": first, "type": case.failures[0].key})
        lines = [f"{result.file}:{each.line}: {case.name}: {each}" for each in case.failures]
        failure.text = _printable("\n".join([*lines, *case.timeline]))


def _printable(text: str) -> str:
    return _UNPRINTABLE.sub("\ufffd", text)
