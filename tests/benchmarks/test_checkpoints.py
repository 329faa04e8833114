"""The benchmark of slim files: its measurements are of what comes back, and its verdicts follow from them."""

from dataclasses import replace

import torch
from checkpoints import kept, large
from checkpoints.lossless import OURS, Case, Result, measure
from checkpoints.page import page, verdicts
from checkpoints.peers import Peer
from checkpoints.weights import Source, sources

STORED = Peer("stored", lambda data, width: data, lambda data, width: data)


def test_a_checkpoint_is_measured_beside_a_peer(tmp_path):
    source = Source("net", "here", torch.nn.Linear(40, 30).state_dict)
    case = kept.case(tmp_path, "net", lambda: measure(source, "bfloat16", [STORED]))
    assert case.nbytes == case.results["stored"].bytes == 2 * (40 * 30 + 30)
    assert 0 < case.results[OURS].bytes < case.nbytes
    assert kept.case(tmp_path, "net", lambda: 1 / 0) == case


def test_weights_that_need_no_package_are_there():
    found, missing = sources()
    assert found[-1].name == "digits CNN"
    assert len(found) + len(missing) == 4


def test_a_large_checkpoint_is_packed_and_deleted(tmp_path):
    runs = large.measure(tmp_path, list(large.shapes(layers=1, width=32, words=50)))
    assert [run.what for run in runs] == [
        "read and write",
        "pack --lossless",
        "pack --nmse 1e-3 --preset fast",
        "pack --nmse 1e-3",
        "unpack of that",
    ]
    assert all(run.peak_bytes > 2**20 for run in runs[1:])
    assert runs[0].file_bytes > runs[1].file_bytes > runs[2].file_bytes >= runs[3].file_bytes
    assert list(tmp_path.iterdir()) == []


def test_verdicts_follow_from_the_measurements():
    ours, rival = Result(99, 150.0, 300.0), Result(100, 500.0, 900.0)
    case = Case("net", "float32", 120, {OURS: ours, "ZipNN": rival})
    run = large.Run("read and write", 2.0, 1.0, 0, 2 * 10**9)
    packed = replace(run, what="pack --lossless", peak_bytes=5 * 10**8)
    assert all(verdict.met for verdict in verdicts([case], [run, packed]))
    worse = replace(case, results={OURS: replace(ours, bytes=101, pack_mb_per_s=90.0), "ZipNN": rival})
    lost = verdicts([case, worse], [run, replace(packed, peak_bytes=2 * 10**9)])
    assert [verdict.met for verdict in lost] == [False, False, True, False]
    text = page([case, worse], [run, packed], ["zstd"])
    assert "**Missed.**" in text
    assert "zstd is not installed" in text
