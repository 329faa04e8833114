"""What no payload can hold is said before there is one."""

import numpy as np
import pytest

from slimfleet.compression import BadInput, ModelSchema, TensorSpec
from slimfleet.compression.limits import MOST_CHANNELS, check_channels, check_sizes, check_values
from slimfleet.compression.pruning import ChannelGroup, Member, pack_channels
from slimfleet.compression.wire import Coder, Header, PayloadKind, Sections, seal, unseal


def spec(name="w", shape=(2,), dtype="float32", kind="weight"):
    return TensorSpec(name, shape, dtype, kind)


def group(size):
    return ChannelGroup("g", size, (Member("w", 0, np.arange(size).reshape(size, 1)),))


def test_as_many_channels_as_are_allowed_fit_the_header():
    most = group(MOST_CHANNELS)
    check_channels([most])
    side = pack_channels([most], {"g": np.arange(MOST_CHANNELS)})
    header = Header(
        schema_digest=bytes(8),
        tensors=2**16 - 1,
        elements=2**32 - 1,
        base_version=0,
        plan_id=0,
        kind=PayloadKind.MODEL,
        coder=Coder.TABLES,
        sections=Sections(0),
        side=side,
    )
    assert unseal(seal(header, b"")).header == header
    with pytest.raises(BadInput, match="524,281 channels that may be removed, the limit is 524,280"):
        check_channels([group(MOST_CHANNELS), group(1)])


def test_as_large_a_model_as_is_allowed():
    fits = [spec(), spec("large", (2**30 - 40_000,))]
    check_sizes(ModelSchema(tuple(fits)))
    for kind, dtype in (("buffer", "float16"), ("frozen", "float64"), ("integer", "int32")):
        with pytest.raises(BadInput, match="the limit is 4,294,967,295"):
            check_sizes(ModelSchema((*fits, spec("more", (40_000,), dtype, kind))))
    check_sizes(ModelSchema(tuple(spec(str(i)) for i in range(2**16 - 1))))


@pytest.mark.parametrize("kind", ["buffer", "frozen"])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 3e38])
def test_what_is_not_trained_begins_as_it_is(kind, value):
    schema = ModelSchema((spec("b", (3,), "float32", kind),))
    check_values(schema, {"b": np.array([1, value, 2], np.float32)})
