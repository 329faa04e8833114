import logging

import numpy as np
import pytest

from slimfleet.client.held import Held, HeldStore, kept_with
from slimfleet.client.workbench import Workbench
from slimfleet.compression import PayloadError
from slimfleet.compression.codec import Snapshot, encode_change, encode_model, publish
from slimfleet.compression.pruning import pack_channels, select_channels
from slimfleet.compression.pruning.blueprint import blueprint
from slimfleet.compression.tensors import tensors_of


@pytest.fixture
def store(tmp_path, architecture):
    return HeldStore(tmp_path, architecture, fsync=False)


@pytest.fixture
def version(architecture):
    """Make (the version as held at a width, its whole payload, the tensors of the model)."""

    def make(number, width=1.0, before=None):
        rng = np.random.default_rng(number)
        model = {
            name: (array + rng.normal(0, 0.01, array.shape)).astype(array.dtype)
            for name, array in tensors_of(architecture.model).items()
        }
        full = publish(model, architecture.schema, 6, before)
        channels = select_channels(architecture.groups, width, "prefix")
        index_map = architecture.index_map(channels)
        side = pack_channels(architecture.groups, channels)
        part = Snapshot({n: index_map.cut(n, levels) for n, levels in full.levels.items()}, full.units)
        others = {t.name: index_map.cut(t.name, model[t.name]) for t in index_map.schema.tensors}
        payload = encode_model(part, others, index_map.schema, version=number, side=side)
        return Held(number, side, part), payload, (full, index_map, others)

    return make


def same(ours, theirs):
    return (ours.version, ours.channels, ours.snapshot.units, ours.snapshot.fingerprint) == (
        theirs.version,
        theirs.channels,
        theirs.snapshot.units,
        theirs.snapshot.fingerprint,
    )


def test_what_is_saved_is_loaded(store, version):
    held = (version(7, 0.5)[0], version(3, 1.0)[0])
    store.save(4, held)
    assert [same(a, b) for a, b in zip(store.load(4), held, strict=True)] == [True, True]
    assert store.load(5) == ()
    store.save(4, ())
    assert store.load(4) == ()


def test_a_third_model_is_refused(store, version):
    with pytest.raises(ValueError, match="3 models"):
        store.save(1, [version(n)[0] for n in (1, 2, 3)])


def test_any_flipped_bit_or_cut_leaves_a_device_holding_nothing(store, version, caplog):
    store.save(4, (version(7, 0.5)[0],))
    sound = store.path(4).read_bytes()
    with caplog.at_level(logging.WARNING):
        for at in range(0, len(sound), 13):
            damaged = bytearray(sound)
            damaged[at] ^= 16
            store.path(4).write_bytes(damaged)
            assert store.load(4) == ()
        for length in range(0, len(sound), 13):
            store.path(4).write_bytes(sound[:length])
            assert store.load(4) == ()
    assert "4.model: the checksum does not fit" in caplog.text


def test_the_file_of_another_model_is_passed_over(store, version, task, tmp_path, caplog):
    class Wider(type(task)):
        def build_model(self):
            model = super().build_model()
            model.append(type(model[4])(2, 2))
            return model

    store.save(4, (version(7)[0],))
    with caplog.at_level(logging.WARNING):
        assert HeldStore(tmp_path, blueprint(Wider(), 1)).load(4) == ()
    assert "another model" in caplog.text


def test_the_newest_is_kept_beside_the_one_it_was_built_on(version):
    one, two, three = (version(n)[0] for n in (1, 2, 3))
    assert kept_with(one, (), None) == (one,)
    assert kept_with(two, (one,), None) == (two, one)
    assert kept_with(three, (two, one), 1) == (three, one), "the coordinator has not heard of version 2"
    assert kept_with(three, (two, one), None) == (three, two)
    assert kept_with(two, (two, one), 1) == (two, one), "a round done again"


def test_a_change_is_opened_by_whoever_holds_at_least_its_channels(workbench, version):
    wide, _, (before, _, _) = version(1)
    narrow, whole, (_, index_map, others) = version(2, 0.5, before)
    base = Snapshot({n: index_map.cut(n, levels) for n, levels in before.levels.items()}, before.units)
    change = encode_change(
        narrow.snapshot, base, others, index_map.schema, base_version=1, side=narrow.channels
    )
    assert change is not None
    received, expected = workbench.open(change, [wide]), workbench.open(whole)
    assert received.base_version == 1
    assert received.snapshot.fingerprint == expected.snapshot.fingerprint
    assert all(np.array_equal(received.tensors[n], expected.tensors[n]) for n in expected.tensors)
    other_number = Held(9, wide.channels, wide.snapshot)
    too_narrow = Held(1, version(1, 0.25)[0].channels, version(1, 0.25)[0].snapshot)
    another = Held(1, narrow.channels, narrow.snapshot)
    for held in ([], [other_number], [too_narrow], [another]):
        with pytest.raises(PayloadError) as refusal:
            workbench.open(change, held)
        assert refusal.value.reason == "stale"


def test_a_model_in_float32_is_not_held(workbench, send):
    assert Workbench(workbench.task, workbench.blueprint, workbench.runtime).open(send()[1]).snapshot is None
