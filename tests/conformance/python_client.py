"""The vectors as the Python client runs them. Each function takes a document and names the cases that fail."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from making.decoding import tensors_of
from making.models import SCHEMAS
from making.writing import float_bytes, integers_json
from numpy.typing import NDArray

from slimfleet.client.anatomy import schema_record
from slimfleet.client.training import local_sgd
from slimfleet.compression import Assignment, Examples, PayloadError, Plan, Training
from slimfleet.compression.codec import Aim, decode, encode_to
from slimfleet.compression.codec.quantise.grid import Grid, Quantised, dequantise
from slimfleet.compression.difference import changed
from slimfleet.compression.messages import parse
from slimfleet.compression.schema import ModelSchema, TensorSpec
from slimfleet.compression.types import Tensors
from slimfleet.compression.wire import Envelope, unseal

Document = dict[str, Any]
VECTORS = Path(__file__).parent / "vectors"


def decoding(document: Document) -> Iterator[str]:
    for name, tensors in document["schemas"].items():
        if tensors != schema_record(SCHEMAS[name]):
            yield f"schema {name}"
    for case in document["cases"]:
        payload = (VECTORS / case["payload"]).read_bytes()
        header = unseal(payload).header
        told = {
            "base_version": header.base_version, "plan_id": str(header.plan_id), "side": header.side.hex(),
        }  # fmt: skip
        tensors, schema = tensors_of(case["schema"], case["kind"], payload, case.get("held"))
        found = told, float_bytes(tensors, schema), integers_json(tensors, schema)
        values = (VECTORS / case["expected_float32"]).read_bytes()
        if found != (case["header"], values, case["expected_integers"]):
            yield case["name"]


def refusing(document: Document) -> Iterator[str]:
    for case in document["cases"]:
        payload = bytes.fromhex(case["payload"]) + bytes(case.get("zeros", 0))
        try:
            tensors_of(case["schema"], case["kind"], payload, case.get("held"))
            yield f"{case['name']}: not refused"
        except PayloadError as error:
            if error.reason != case["reason"]:
                yield f"{case['name']}: {error.reason}"


def encoding(document: Document) -> Iterator[str]:
    """Encodes, and checks what came of it as any client's payload is checked."""
    for case in document["cases"]:
        aim = Aim(nmse=case["nmse"], limit_bytes=case["limit_bytes"])
        envelope = Envelope(base_version=case["base_version"], plan_id=int(case["plan_id"]))
        payload = encode_to(update_of(case), SCHEMAS[case["schema"]], aim, envelope=envelope).payload
        yield from check_update(case, payload)


def check_update(case: Document, payload: bytes) -> Iterator[str]:
    """What is wrong with the update that some client has coded for a case."""
    schema, wanted = SCHEMAS[case["schema"]], update_of(case)
    decoded = decode(payload, schema)
    if (decoded.header.base_version, decoded.header.plan_id) != (case["base_version"], int(case["plan_id"])):
        yield f"{case['name']}: header"
    if len(payload) > case["limit_bytes"]:
        yield f"{case['name']}: {len(payload)} bytes"
    error = energy = 0.0
    for t in schema.tensors:
        now, then = decoded.tensors[t.name], wanted[t.name]
        if t.kind == "weight":
            error += float(np.sum((now.astype(np.float64) - then.astype(np.float64)) ** 2))
            energy += float(np.sum(then.astype(np.float64) ** 2))
        elif t.kind == "integer":
            if not np.array_equal(now, then):
                yield f"{case['name']}: {t.name}"
        elif not np.allclose(now.astype(np.float64), then.astype(np.float64), rtol=2.0**-11, atol=2.0**-25):
            yield f"{case['name']}: {t.name}"
    # What is rounded to float16 on the way adds a little to the error that was asked for.
    if error > (case["nmse"] + 1e-6) * energy:
        yield f"{case['name']}: error {error / energy}"


def update_of(case: Document) -> Tensors:
    """The tensors of a case of encode.json."""
    flat = np.frombuffer((VECTORS / case["float32"]).read_bytes(), "<f4")
    tensors: Tensors = {}
    for t in SCHEMAS[case["schema"]].tensors:
        if t.kind == "integer":
            numbers = np.array([int(v) for v in case["integers"][t.name]], np.int64)
            tensors[t.name] = numbers.astype(t.dtype).reshape(t.shape)
        else:
            tensors[t.name], flat = flat[: t.size].astype(t.dtype).reshape(t.shape), flat[t.size :]
    return tensors


def training(document: Document) -> Iterator[str]:
    for number, case in enumerate(document["sgd"]):
        expected = floats(case["expected"][-1])
        apart = np.abs(_trained(case).view(np.int32) - expected.view(np.int32)).max()
        if apart > case["ulps"]:
            yield f"sgd {number}: {apart} units in the last place"
    for number, case in enumerate(document["differences"]):
        before, after, expected = (
            _array(case[key], case["dtype"]) for key in ("before", "after", "expected")
        )
        if changed(after, before, case["kind"]).tobytes() != expected.tobytes():
            yield f"difference {number}"
    for number, case in enumerate(document["levels"]):
        levels = np.array(case["levels"], np.int32).reshape(-1, 1)
        grid = Grid((float(floats([case["unit"]])[0]),), tuple(case["offsets"]), 0)
        schema = ModelSchema((TensorSpec("w", levels.shape, case["dtype"], "weight"),))
        values = dequantise(Quantised({"w": levels}, grid, {}), schema)["w"].astype(np.float32)
        if values.tobytes() != floats(case["expected"]).tobytes():
            yield f"levels {number}"
    for number, case in enumerate(document["halves"]):
        rounded = floats(case["values"]).astype(np.float16).astype(np.float32)
        if rounded.tobytes() != floats(case["expected"]).tobytes():
            yield f"halves {number}"


def messages(document: Document) -> Iterator[str]:
    for case in document["accepted"]:
        fields = asdict(parse(Assignment, case["text"]))
        if fields | {"plan_id": str(fields["plan_id"])} != case["fields"]:
            yield case["name"]
    for case in document["refused"]:
        try:
            parse(Assignment, case["text"])
            yield f"{case['name']}: not refused"
        except PayloadError as error:
            if error.reason != case["reason"]:
                yield f"{case['name']}: {error.reason}"


RUNS = {
    "decode": decoding,
    "refuse": refusing,
    "encode": encoding,
    "train": training,
    "assign": messages,
}
"""Document -> what runs it."""


def floats(bits: list[int]) -> NDArray[np.float32]:
    """float32 values from the numbers that their bits are."""
    return np.array(bits, np.uint32).view(np.float32)


def _array(values: list[Any], dtype: str) -> NDArray[Any]:
    return floats(values) if dtype == "float32" else np.array([int(v) for v in values]).astype(dtype)


class _Weight(torch.nn.Module):
    """A model whose output is its weight, so that the gradient of `(output * g).sum()` is g."""

    def __init__(self, start: NDArray[np.float32]) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.from_numpy(start.copy()))

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return self.weight * inputs


def _trained(case: Document) -> NDArray[np.float32]:
    """The weight after all steps of a case, by the client's own training."""
    model, gradients = _Weight(floats(case["weight"])), case["gradients"]
    batches = (Examples(torch.ones(1), torch.from_numpy(floats(each))[None]) for each in gradients)
    training = Training(
        learning_rate=case["learning_rate"], momentum=case["momentum"], proximal=case["proximal"]
    )
    plan = Plan(width=1.0, local_steps=len(gradients), batch_size=1, nmse=0.0)
    task: Any = SimpleNamespace(name="w", loss=lambda outputs, targets: (outputs * targets[0]).sum())
    local_sgd(model, task, batches, plan, training, lambda: None, lambda examples: None)
    return model.weight.detach().numpy()
