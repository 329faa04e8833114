"""Without constriction, payloads of the portable coder are read all the same, and refused all the same."""

import sys
import tracemalloc

import numpy as np
import pytest

from slimfleet.compression.codec import CodecSpec, Coding, decode, encode
from slimfleet.compression.codec.codec import largest_payload
from slimfleet.compression.codec.entropy import ans
from slimfleet.compression.codec.entropy.ans import LevelDecoder, Table, encode_levels
from slimfleet.compression.codec.entropy.fields import write_grid
from slimfleet.compression.codec.entropy.frequencies import code_of, normalise
from slimfleet.compression.codec.quantise.grid import Grid
from slimfleet.compression.errors import BadInput, PayloadError
from slimfleet.compression.schema import ModelSchema
from slimfleet.compression.wire import Coder, Envelope, Header, PayloadKind, Sections, seal, unseal


@pytest.fixture
def without_constriction(monkeypatch):
    """Call it, and constriction is missing from then on."""

    def hide():
        monkeypatch.setitem(sys.modules, "constriction", None)
        ans.installed.cache_clear()

    yield hide
    monkeypatch.undo()
    ans.installed.cache_clear()


@pytest.mark.parametrize("bits", [1, 4, 8])
def test_an_update_is_read_all_the_same(update, schema, bits, without_constriction):
    encoded = encode(update, schema, CodecSpec(bits=bits), coding=Coding("portable"))
    assert unseal(encoded.payload).header.coder is Coder.TABLES
    without_constriction()
    decoded = decode(encoded.payload, schema).tensors
    assert all(np.array_equal(decoded[name], array) for name, array in encoded.decoded.items())


def read(data: bytes, table: Table) -> bytes | str:
    decoder = LevelDecoder(data, 300)
    levels = decoder.read(300, table).tobytes()
    try:
        decoder.finish()
    except PayloadError as error:
        return error.reason
    return levels


def test_words_that_no_encoder_wrote_are_read_alike(without_constriction):
    rng = np.random.default_rng(0)
    levels = rng.geometric(0.3, 300).astype(np.int32) * rng.choice([-1, 1], 300).astype(np.int32)
    table = Table(normalise(code_of(np.bincount(np.abs(levels)))))
    honest = encode_levels([(levels, table)])
    assert read(honest, table) == levels.tobytes()
    streams = [honest, b"", b"\1", honest[:-4].rstrip(b"\0"), b"\7" + honest, honest + b"\1"]
    streams += [rng.integers(1, 256, int(size), np.uint8).tobytes() for size in rng.integers(1, 400, 60)]
    fast = [read(data, table) for data in streams]
    without_constriction()
    assert [read(data, table) for data in streams] == fast
    assert len({data for data in fast if isinstance(data, bytes)}) > 1


def costly(schema: ModelSchema, extra: int) -> bytes:
    """A sound payload whose weights are as long as their table allows, and then so many bytes more."""
    (spec,) = schema.weights
    code = code_of(np.r_[2**40, np.ones(1024, np.int64)])
    table = Table(normalise(code))
    rng = np.random.default_rng(0)
    levels = (rng.integers(900, 1025, spec.size) * rng.choice([-1, 1], spec.size)).astype(np.int32)
    stream = encode_levels([(levels, table)])
    section = write_grid(Grid((1.0,), (), 0)) + bytes([1, 1]) + (1024).to_bytes(2, "little") + code.tobytes()
    header = Header(
        schema_digest=schema.digest,
        tensors=1,
        elements=spec.size,
        base_version=0,
        plan_id=0,
        kind=PayloadKind.UPDATE,
        coder=Coder.TABLES,
        sections=Sections.WEIGHTS,
    )
    return seal(header, section + stream + b"\1" * extra)


@pytest.mark.parametrize("constriction", [True, False])
@pytest.mark.parametrize("padded", [False, True])
def test_the_costliest_payload_stays_within_four_times_the_model(constriction, padded, without_constriction):
    arrays = {"w": np.zeros((50, 1000), np.float32)}
    schema = ModelSchema.of(arrays, arrays)
    payload = costly(schema, 0)
    if padded:
        payload = costly(schema, largest_payload(schema) - len(payload))
    if not constriction:
        without_constriction()
    tracemalloc.start()
    try:
        if padded:
            with pytest.raises(PayloadError) as refused:
                decode(payload, schema)
            assert refused.value.reason == "entropy"
        else:
            decode(payload, schema)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak <= 4 * schema.nbytes


def test_a_model_never_needs_constriction_to_be_read():
    """Large alphabets of an update may go by the portable coder; those of a model go where every device can read."""
    rng = np.random.default_rng(0)
    arrays = {"w": rng.uniform(-1, 1, (128, 128)).astype(np.float32)}
    flat = ModelSchema.of(arrays, arrays)
    coder = {
        kind: unseal(
            encode(arrays, flat, CodecSpec(bits=8), envelope=Envelope(kind=kind)).payload
        ).header.coder
        for kind in (PayloadKind.UPDATE, PayloadKind.MODEL)
    }
    assert coder == {PayloadKind.UPDATE: Coder.TABLES, PayloadKind.MODEL: Coder.CONTEXTS}


def test_writing_says_what_is_missing(update, schema, without_constriction):
    without_constriction()
    with pytest.raises(BadInput, match="needs the package constriction"):
        encode(update, schema, CodecSpec(bits=4), coding=Coding("portable"))
