"""Encoding: updates that a client codes to an error and a limit of bytes; any payload will do that decodes to them."""

from __future__ import annotations

import numpy as np

from making.models import SCHEMAS, noise, odd_tensors, wide_tensors
from making.text import text_of
from making.writing import Document, Files, float_bytes, integers_json
from slimfleet.compression.types import Tensors

AIMS = (0.0, 0.001, 0.03, 0.3)


def encoding() -> Files:
    files: Files = {}
    cases: list[Document] = []
    for name, (schema, tensors) in updates().items():
        files[f"bytes/{name}.float32"] = float_bytes(tensors, SCHEMAS[schema])
        for number, nmse in enumerate(AIMS):
            whole, tight = SCHEMAS[schema].nbytes + 8192, name == "update_sparse" and nmse == 0.3
            cases.append(
                {
                    "name": f"{name} at {nmse}",
                    "schema": schema,
                    "float32": f"bytes/{name}.float32",
                    "integers": integers_json(tensors, SCHEMAS[schema]),
                    "nmse": nmse,
                    "limit_bytes": 500 if tight else whole,
                    "base_version": 2**32 - 1 - number,
                    "plan_id": str(2**64 - 1 - number),
                }
            )
    return {**files, "encode.json": text_of({"cases": cases})}


def updates() -> dict[str, tuple[str, Tensors]]:
    sparse = {t.name: np.zeros(t.shape, t.dtype) for t in SCHEMAS["large"].tensors}
    sparse["tall.weight"].reshape(-1)[::97] = noise(75)
    sparse["scale"][...] = 3.0
    odd = {t.name: odd_tensors()[t.name] for t in SCHEMAS["odd update"].tensors}
    odd = {name: np.where(np.isfinite(a), a, 0).astype(a.dtype) for name, a in odd.items()}
    return {
        "update_dense": ("wide", wide_tensors()),
        "update_sparse": ("large", sparse),
        "update_odd": ("odd update", odd),
        "update_of_zeros": ("odd update", {name: np.zeros_like(a) for name, a in odd.items()}),
    }
