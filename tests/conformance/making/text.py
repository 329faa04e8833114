"""JSON of the vectors: a line for each case, so that a change of one shows as one."""

from __future__ import annotations

import json
from typing import Any


def text_of(document: dict[str, Any]) -> bytes:
    lines = []
    for key, value in document.items():
        many = value if isinstance(value, list) else None
        if many is None and isinstance(value, dict):
            inner = ",\n".join(f"    {json.dumps(k)}: {json.dumps(v)}" for k, v in value.items())
            lines.append(f"  {json.dumps(key)}: {{\n{inner}\n  }}")
        elif many is not None:
            inner = ",\n".join(f"    {json.dumps(each)}" for each in many)
            lines.append(f"  {json.dumps(key)}: [\n{inner}\n  ]")
        else:
            lines.append(f"  {json.dumps(key)}: {json.dumps(value)}")
    return ("{\n" + ",\n".join(lines) + "\n}\n").encode()
