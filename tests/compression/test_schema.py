import numpy as np
import pytest

from slimfleet.compression import BadInput, ModelSchema, PayloadError, TensorSpec
from slimfleet.compression.edge.references import resolve

TENSORS = {
    "w": np.zeros((3, 2), np.float32),
    "mean": np.zeros(3, np.float32),
    "count": np.array(0),
    "flag": np.zeros(2, np.bool_),
    "empty": np.zeros((0, 4), np.float32),
}
SCHEMA = ModelSchema.of(TENSORS, ["w", "empty"])


def test_a_schema_is_read_off_arrays():
    assert SCHEMA.tensors[0] == TensorSpec("w", (3, 2), "float32", "weight")
    assert [t.kind for t in SCHEMA.tensors] == ["weight", "buffer", "integer", "integer", "weight"]
    assert [t.size for t in SCHEMA.tensors] == [6, 3, 1, 2, 0]
    assert (SCHEMA.elements, SCHEMA.nbytes) == (12, 24 + 12 + 8 + 2)


def test_an_update_has_no_frozen_tensors():
    schema = ModelSchema.of(TENSORS, ["w"], ["mean", "count"])
    assert [t.kind for t in schema.tensors] == ["weight", "frozen", "integer", "integer", "buffer"]
    assert [t.name for t in schema.moving.tensors] == ["w", "count", "flag", "empty"]
    assert schema.moving.moving is schema.moving
    assert SCHEMA.moving is SCHEMA
    assert [t.name for t in schema.plain] == ["mean", "count", "flag", "empty"]


def test_the_digest_sees_every_name_shape_dtype_kind_and_the_order():
    others = [
        {"v" if name == "w" else name: array for name, array in TENSORS.items()},
        TENSORS | {"w": np.zeros((2, 3), np.float32)},
        TENSORS | {"w": np.zeros((3, 2), np.float64)},
        dict(reversed(TENSORS.items())),
        {name: array for name, array in TENSORS.items() if name != "empty"},
    ]
    digests = {ModelSchema.of(tensors, ["w", "v", "empty"]).digest for tensors in others}
    digests |= {SCHEMA.digest, ModelSchema.of(TENSORS, ["w", "mean", "empty"]).digest}
    assert len(digests) == len(others) + 2
    assert all(len(digest) == 8 for digest in digests)
    assert ModelSchema.of(TENSORS, ["w", "empty"]).digest == SCHEMA.digest


def test_check_returns_the_schemas_order():
    assert list(SCHEMA.check(dict(reversed(TENSORS.items())))) == list(TENSORS)


@pytest.mark.parametrize(
    ("tensors", "words"),
    [
        ({n: a for n, a in TENSORS.items() if n != "w"}, r"missing \['w'\]"),
        (TENSORS | {"more": np.zeros(1)}, r"unexpected \['more'\]"),
        (TENSORS | {"w": np.zeros(6, np.float32)}, r"'w' is float32\[6\], the schema says float32\[3, 2\]"),
        (TENSORS | {"w": np.zeros((3, 2))}, r"'w' is float64\[3, 2\]"),
    ],
)
def test_check_names_what_differs(tensors, words):
    with pytest.raises(PayloadError, match=words) as refusal:
        SCHEMA.check(tensors)
    assert refusal.value.reason == "schema"


def test_with_shapes_changes_shapes_alone():
    small = SCHEMA.with_shapes({**{t.name: t.shape for t in SCHEMA.tensors}, "w": (1, 2)})
    assert small.tensors[0] == TensorSpec("w", (1, 2), "float32", "weight")
    assert small.tensors[1:] == SCHEMA.tensors[1:]


def test_a_reference_is_imported():
    assert resolve("slimfleet.compression.schema:ModelSchema") is ModelSchema


@pytest.mark.parametrize(
    "reference", ["", "json", "json:", ":loads", "json:no_such_name", "no_such_package_here.at_all:x"]
)
def test_a_reference_that_cannot_be_resolved_is_bad_input(reference):
    with pytest.raises(BadInput):
        resolve(reference)
