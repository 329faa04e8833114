"""Messages: assignments as JSON text, with what they say, and texts that must be refused."""

from __future__ import annotations

import json
from copy import deepcopy
from dataclasses import asdict
from typing import Any

from making.text import text_of
from making.writing import Document, Files
from slimfleet.compression import Assignment
from slimfleet.compression.messages import MAX_TEXT, parse

LEAST: dict[str, Any] = {
    "round_number": 0,
    "plan_id": 0,
    "plan": {"width": 1.0, "local_steps": 1, "batch_size": 1, "nmse": 0.0},
    "budget": {},
    "training": {"learning_rate": 0.1},
}
MOST: dict[str, Any] = {
    "round_number": 2**53,
    "plan_id": 2**64 - 1,
    "plan": {
        "width": 0.0625, "local_steps": 10**6, "batch_size": 10**5, "nmse": 0.999,
        "precision": "bfloat16", "reason": "Zürich: the smallest, <b>",
    },
    "budget": {
        "energy_j": 0.0, "power_w": 0.5, "memory_bytes": 2**53, "deadline_s": 1e9, "uplink_bytes": 0,
        "downlink_bytes": 1,
    },
    "training": {
        "learning_rate": 1e-300, "momentum": 0, "proximal": 1, "rounding": "stochastic", "feedback": False,
        "feedback_decay": 0.0, "feedback_max_age": 0, "feedback_max_norm": 0.001, "seed": 9, "held_out": 0.25,
    },
    "codec_preset": "portable",
    "acknowledged_round": 2**53 - 1,
    "evaluation": {"examples": 2**20, "energy_j": 1e6},
}  # fmt: skip

WRONG: list[tuple[str, Any]] = [
    ("round_number", -1), ("round_number", 2**53 + 1), ("round_number", "1"), ("round_number", None),
    ("plan_id", 2**64), ("plan_id", -1), ("plan_id", 1.5),
    ("plan", None), ("plan", []), ("plan.width", 0.0), ("plan.width", 1.01), ("plan.width", "1"), ("plan.width", True),
    ("plan.local_steps", 0), ("plan.local_steps", 10**6 + 1), ("plan.local_steps", 2.5), ("plan.batch_size", 0),
    ("plan.nmse", 1.0), ("plan.nmse", -0.1), ("plan.precision", "float64"), ("plan.reason", "a\nb"),
    ("plan.reason", "a" * 501), ("plan.reason", "a\u2003b"), ("plan.more", 1),
    ("budget", 5), ("budget.energy_j", -1.0), ("budget.power_w", 0.0), ("budget.uplink_bytes", 1.5),
    ("budget.joules", 1),
    ("training.learning_rate", 0), ("training.momentum", 1.0), ("training.proximal", -0.5),
    ("training.rounding", "nearest"), ("training.feedback", 1), ("training.feedback_decay", 1.5),
    ("training.feedback_max_norm", 0.0), ("training.held_out", 1.0), ("training.seed", -3),
    ("codec_preset", "tiny"), ("acknowledged_round", -1), ("evaluation", {"examples": 0, "energy_j": 1.0}),
    ("evaluation", {"examples": 5}), ("more", 1),
]  # fmt: skip
"""Field -> a value that no assignment has there."""

TEXTS = {
    "nothing": "",
    "no JSON": "{",
    "a list": "[]",
    "text after the end": json.dumps(LEAST) + "}",
    "a comma before the end": json.dumps(LEAST)[:-1] + ",}",
    "NaN": json.dumps(LEAST).replace('"nmse": 0.0', '"nmse": NaN'),
    "a number beyond float64": json.dumps(LEAST).replace('"width": 1.0', '"width": 1e999'),
    "infinity": json.dumps(LEAST).replace("0.1", "Infinity"),
    "a space that JSON does not know": "\u00a0" + json.dumps(LEAST),
    "nested without end": "[" * 2_000,
    "too long": json.dumps(LEAST) + " " * MAX_TEXT,
}


def messages() -> Files:
    accepted: list[Document] = [
        {"name": name, "text": json.dumps(fields), "fields": _said(json.dumps(fields))}
        for name, fields in (("the least", LEAST), ("the most", MOST))
    ]
    refused = [{"name": name, "text": text, "reason": "message"} for name, text in TEXTS.items()]
    for field, value in WRONG:
        refused.append(
            {"name": f"{field}: {str(value)[:40]}", "text": _spoiled(field, value), "reason": "message"}
        )
    for missing in LEAST:
        less = {key: value for key, value in LEAST.items() if key != missing}
        refused.append({"name": f"no {missing}", "text": json.dumps(less), "reason": "message"})
    return {"assign.json": text_of({"accepted": accepted, "refused": refused})}


def _said(text: str) -> Document:
    """All fields; the plan's number as text, since not every JSON reader has 64 bits."""
    fields = asdict(parse(Assignment, text))
    return fields | {"plan_id": str(fields["plan_id"])}


def _spoiled(field: str, value: object) -> str:
    fields = deepcopy(MOST)
    *folders, name = field.split(".")
    at = fields
    for folder in folders:
        at = at[folder]
    at[name] = value
    return json.dumps(fields)
