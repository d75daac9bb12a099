"""The JSON schema of ``parity.json``, made from the types and docstrings of the report's classes.

``docs/parity.schema.json`` is what it gives; ``make docs`` writes it.
"""

from __future__ import annotations

import inspect
import re
from typing import Any

from mlxport.converter.parity.report.metal_check import MetalCheck, MetalRemark
from mlxport.converter.parity.report.pictures import Histogram, Picture, Plane
from mlxport.converter.parity.report.report import REPORT_VERSION, Findings, ParityReport
from mlxport.converter.parity.verdict.compare import Verdict
from mlxport.converter.parity.verdict.entry import ParityEntry
from mlxport.converter.plan.json_data import schema_of

_RECORDS = (
    *(Findings, ParityReport, ParityEntry, Verdict, Picture, Plane, Histogram),
    *(MetalCheck, MetalRemark),
)
_ATTRIBUTE = re.compile(r"^ {4}(\w+): (.*(?:\n {8}.*)*)", re.MULTILINE)


def parity_schema() -> dict[str, Any]:
    """Return the schema of a report as it is written: every field, and no others."""
    schema = schema_of(ParityReport)
    records = schema["$defs"] | schema_of(Findings)["$defs"]
    for cls in _RECORDS:
        _describe(records[cls.__name__], cls)
    found = records.pop(Findings.__name__)
    report = records[ParityReport.__name__]
    report["properties"] = found["properties"] | report["properties"]
    for record in records.values():
        record["required"] = list(record["properties"])
        record["additionalProperties"] = False
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": f"Parity report of mlxport, version {REPORT_VERSION}",
        **schema,
        "$defs": records,
    }


def _sentence(text: str) -> str:
    line = " ".join(text.split())
    return line[:1].upper() + line[1:]


def _describe(record: dict[str, Any], cls: type[Any]) -> None:
    """Put what a class's docstring says of it and of its fields into its schema."""
    text = inspect.cleandoc(cls.__doc__ or "")
    record["description"] = text.partition("\n")[0]
    for name, said in _ATTRIBUTE.findall(text):
        field = record["properties"][name]
        field.pop("default", None)
        described = {**field, "description": _sentence(said)}
        record["properties"][name] = described
