"""Opening what the coordinator sends: a whole model, or the change of one that is held."""

import numpy as np
import pytest

from slimfleet.client.loaded import Loaded
from slimfleet.client.state import Held
from slimfleet.compression import PayloadError
from slimfleet.compression.codec import Snapshot, encode_change


def test_a_change_is_opened_where_at_least_its_channels_are_held(workbench, published):
    wide = published(1)
    narrow = published(2, 0.5, wide.full)
    cut = {name: narrow.index_map.cut(name, levels) for name, levels in wide.full.levels.items()}
    change = encode_change(
        narrow.held.snapshot,
        Snapshot(cut, wide.full.units),
        narrow.others,
        narrow.index_map.schema,
        base_version=1,
        side=narrow.held.channels,
    )
    assert change is not None
    received, expected = workbench.open(change, [wide.held]), workbench.open(narrow.payload)
    assert (received.base_version, expected.base_version) == (1, None)
    assert received.snapshot.fingerprint == expected.snapshot.fingerprint
    assert all(np.array_equal(received.tensors[n], expected.tensors[n]) for n in expected.tensors)
    other_number = Held(9, wide.held.channels, wide.held.snapshot)
    too_narrow = published(1, 0.25).held
    another_model = Held(1, narrow.held.channels, narrow.held.snapshot)
    for held in ([], [other_number], [too_narrow], [another_model]):
        with pytest.raises(PayloadError) as refusal:
            workbench.open(change, held)
        assert refusal.value.reason == "stale"


def test_a_model_in_float32_is_not_held(workbench, send):
    assert workbench.open(send()[1]).snapshot is None


def test_examples_are_loaded_once_and_the_oldest_are_let_go(task):
    asked = []

    class Asked:
        def load(self, partition):
            asked.append(partition)
            return task.load(partition)

    size = sum(each.nbytes for each in (task.load(0).inputs, task.load(0).targets))
    loaded = Loaded(Asked(), most_bytes=2 * size)
    for partition in (0, 1, 0, 2, 0, 1):
        assert loaded.of(partition).inputs.equal(task.load(partition).inputs)
    assert asked == [0, 1, 2, 1]
    alone = Loaded(Asked(), most_bytes=0)
    assert alone.of(3) is alone.of(3)
