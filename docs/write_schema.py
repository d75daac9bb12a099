"""Write docs/parity.schema.json from the classes of the parity report: ``make docs``."""

from __future__ import annotations

import json
from pathlib import Path

from mlxport.converter.parity.report.schema import parity_schema

SCHEMA = Path(__file__).with_name("parity.schema.json")

if __name__ == "__main__":
    SCHEMA.write_text(json.dumps(parity_schema(), indent=2) + "\n", encoding="utf-8")
