"""slimfleet-compress as a person calls it."""

import json
import subprocess
import sys

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file

from slimfleet.compression import ModelSchema
from slimfleet.compression.codec import CodecSpec, encode, error
from slimfleet.compression.wire import Envelope, PayloadKind

# Flower holds typer at a version that uses names which Click has deprecated.
pytestmark = pytest.mark.filterwarnings("ignore:.*will be removed in Click 9:DeprecationWarning")


@pytest.fixture
def file(tmp_path, update):
    np.savez(tmp_path / "update.npz", **update)
    return tmp_path / "update.npz"


def test_several_targets_as_json(compress, file, update):
    code, out, err = compress("update", file, "--nmse", "0.3", "0.1", "0.03", "--json")
    points = json.loads(out)
    assert code == 0
    assert "norm.num_batches_tracked" in err
    assert [point["target_nmse"] for point in points] == [0.3, 0.1, 0.03]
    parameters = sum(a.size for n, a in update.items() if a.dtype == np.float32 and "running" not in n)
    for point in points:
        assert set(point) == {
            "target_nmse",
            "nmse",
            "bytes",
            "bits_per_parameter",
            "encode_mb_per_s",
            "decode_mb_per_s",
        }
        assert 0 < point["nmse"] <= point["target_nmse"]
        assert point["bits_per_parameter"] == pytest.approx(8 * point["bytes"] / parameters)
        assert point["encode_mb_per_s"] > 0
        assert point["decode_mb_per_s"] > 0
    assert points[0]["bytes"] < points[1]["bytes"] < points[2]["bytes"]


def test_a_limit_of_bytes_as_a_table(compress, file, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    code, out, _ = compress("update", file, "--bytes", "300")
    assert code == 0
    assert "update.npz" in out
    words = {word for line in out.splitlines()[1:4] for word in line.split()}
    assert words >= {
        "target",
        "NMSE",
        "bytes",
        "bits",
        "per",
        "parameter",
        "ratio",
        "encode",
        "decode",
        "MB/s",
    }


def test_inspect_shows_the_header(compress, tmp_path, update, schema):
    path = tmp_path / "one.payload"
    path.write_bytes(
        encode(
            update, schema, CodecSpec(bits=4), envelope=Envelope(base_version=41, plan_id=987654321)
        ).payload
    )
    code, out, _ = compress("inspect", path)
    assert code == 0
    for word in ("41", "987654321", schema.digest.hex(), "contexts", "update"):
        assert word in out


def test_a_reference_saves_bytes_and_the_payload_can_be_kept(compress, file, tmp_path, update):
    np.savez(tmp_path / "last.npz", **{name: array * 0.5 for name, array in update.items()})
    sizes = []
    for options in ((), ("--reference", tmp_path / "last.npz")):
        code, out, _ = compress("update", file, "--nmse", "0.1", *options, "--save", tmp_path / "p", "--json")
        assert code == 0
        sizes.append(json.loads(out)[0]["bytes"])
        assert (tmp_path / "p").stat().st_size == sizes[-1]
        assert compress("inspect", tmp_path / "p")[0] == 0
    assert sizes[1] < 0.7 * sizes[0]


@pytest.mark.parametrize(
    ("preset", "coder"), [("small", "contexts"), ("fast", "contexts"), ("portable", "tables")]
)
def test_presets_choose_the_coder(compress, file, tmp_path, preset, coder):
    assert compress("update", file, "--nmse", "0.1", "--preset", preset, "--save", tmp_path / "p")[0] == 0
    assert coder in compress("inspect", tmp_path / "p")[1]


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (("update", "missing.npz"), "missing.npz"),
        (("update", "{file}", "--nmse", "much"), "much"),
        (("update", "{file}", "--nmse", "0.3", "more"), "more"),
        (("update", "{file}", "--nmse", "1.5"), "1.5"),
        (("update", "{file}", "--bytes", "20"), "20"),
        (("update", "{file}", "--speed", "9"), "--speed"),
        (("update", "{file}", "--preset", "tiny"), "tiny"),
        (("update", "{file}", "--profile", "fast"), "--preset fast"),
        (("update", "{file}", "--reference", "{integers}"), "no float array"),
        (("update", "{file}", "--reference", "{other}"), "conv.weight"),
        (("inspect", "{file}"), "magic"),
        (("inspect", "missing.bin"), "missing.bin"),
        (("update", "{text}"), "numpy.savez"),
        (("update", "{nan}"), "NaN"),
        (("update", "{integers}"), "no float array"),
        (("update", "{folder}"), "not a file"),
        (("update", "{file}", "--save", "{folder}"), "folder"),
        (("update", "{file}", "--save", "."), "folder"),
        (("update", "{file}", "--save", "{text}/below"), "cannot write"),
        (("update", "{file}", "--reference", "{text}"), "numpy.savez"),
        (("update", "{huge}"), "3e+38"),
        (("inspect", "{folder}"), "not a file"),
        (("inspect", "/dev/zero"), "not a file"),
        (("decode", "{file}", "--like", "{file}", "--out", "o.npz"), "magic"),
        (("decode", "{payload}", "--like", "{other}", "--out", "o.npz"), "1 of 3"),
        (("decode", "{payload}", "--like", "{text}", "--out", "o.npz"), "numpy.savez"),
        (("decode", "{payload}", "--like", "{file}", "--out", "o.txt"), ".safetensors"),
        (("decode", "{payload}", "--like", "{file}", "--out", "{folder}/folder.npz"), "folder"),
        (("decode", "{payload}", "--like", "{file}"), "--out"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(compress, file, update, tmp_path, arguments, word):
    (tmp_path / "folder.npz").mkdir()
    weights = {n: a for n, a in update.items() if "running" not in n and a.dtype == np.float32}
    made = encode(weights, ModelSchema.of(weights, weights), CodecSpec(bits=4))
    (tmp_path / "payload").write_bytes(made.payload)
    np.savez(tmp_path / "huge.npz", x=np.array([1, 3e38], np.float32))
    (tmp_path / "text").write_text("no archive")
    np.savez(tmp_path / "nan.npz", x=np.array([1, np.nan], np.float32))
    np.savez(tmp_path / "integers.npz", x=np.arange(3))
    np.savez(tmp_path / "other.npz", x=np.ones(3, np.float32))
    places = {
        "file": file,
        "other": tmp_path / "other.npz",
        "text": tmp_path / "text",
        "nan": tmp_path / "nan.npz",
        "integers": tmp_path / "integers.npz",
        "huge": tmp_path / "huge.npz",
        "payload": tmp_path / "payload",
        "folder": tmp_path,
    }
    code, out, err = compress(*(argument.format(**places) for argument in arguments))
    assert code == 2
    assert out == ""
    assert len(err.splitlines()) == 1
    assert word in err


@pytest.mark.parametrize("reference", [False, True])
@pytest.mark.parametrize("suffix", ["npz", "safetensors", "pt"])
def test_a_payload_becomes_tensors_again(compress, tmp_path, update, suffix, reference):
    source, again = tmp_path / f"source.{suffix}", tmp_path / "again.npz"
    np.savez(tmp_path / "last.npz", **{name: array * 0.5 for name, array in update.items()})
    known = ("--reference", tmp_path / "last.npz") if reference else ()
    if suffix == "npz":
        np.savez(source, **update)
    elif suffix == "safetensors":
        save_file(update, source)
    else:
        torch.save({name: torch.from_numpy(np.array(array)) for name, array in update.items()}, source)
    saving = ("--nmse", "0.01", "--save", tmp_path / "p", "--json", *known)
    code, out, _ = compress("update", source, *saving)
    assert code == 0
    assert compress("decode", tmp_path / "p", "--like", source, "--out", again, *known)[0] == 0
    weights = {n: a for n, a in update.items() if "running" not in n and a.dtype == np.float32}
    with np.load(again) as archive:
        decoded = {name: archive[name] for name in archive.files}
    assert decoded.keys() == weights.keys()
    assert error.nmse(weights, {n: decoded[n] for n in weights}) == pytest.approx(json.loads(out)[0]["nmse"])


def test_a_payload_of_a_whole_model_is_decoded_with_its_counters(compress, tmp_path, update):
    """As the coordinator sends it; `model.safetensors` of a run has another order than the model."""
    names = sorted(update)
    trained = {n for n, a in update.items() if a.dtype == np.float32 and "running" not in n}
    model = {name: update[name] for name in names}
    made = encode(
        model, ModelSchema.of(model, trained), CodecSpec(bits=8), envelope=Envelope(kind=PayloadKind.MODEL)
    )
    (tmp_path / "p").write_bytes(made.payload)
    np.savez(tmp_path / "like.npz", **dict(reversed(model.items())))
    assert (
        compress(
            "decode", tmp_path / "p", "--like", tmp_path / "like.npz", "--out", tmp_path / "o.safetensors"
        )[0]
        == 0
    )
    found = load_file(tmp_path / "o.safetensors")
    assert found.keys() == made.decoded.keys()
    for name, array in made.decoded.items():
        np.testing.assert_array_equal(found[name], array)


def test_the_ratio_is_to_the_bytes_of_the_file(compress, tmp_path):
    values = np.random.default_rng(0).laplace(0, 1, (100, 100))
    ratios = {}
    for name in ("float16", "float32", "float64"):
        np.savez(tmp_path / f"{name}.npz", w=values.astype(name))
        code, out, _ = compress("update", tmp_path / f"{name}.npz", "--nmse", "0.1")
        assert code == 0
        assert f"{values.astype(name).nbytes:,} bytes" in out
        ratios[name] = int(
            next(word for word in out.split() if word.endswith("x") and word[0].isdigit())[:-1]
        )
    assert ratios["float64"] == pytest.approx(2 * ratios["float32"], abs=1)
    assert ratios["float32"] == pytest.approx(2 * ratios["float16"], abs=1)


@pytest.mark.parametrize("arguments", [("--help",), ("update", "--help")])
def test_help_does_not_wait_for_the_codec(arguments):
    """In a process of its own, as a person starts it."""
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "slimfleet.compression.cli", *arguments],
        capture_output=True,
        text=True,
        check=True,
    )
    assert "--reference" in done.stdout or "inspect" in done.stdout
    imported = {line.split("|")[-1].strip() for line in done.stderr.splitlines()}
    assert "slimfleet.compression.edge.command_line" in imported
    assert not imported & {"torch", "constriction", "slimfleet.compression.codec"}


def test_the_codec_needs_no_torch():
    check = "import sys, slimfleet.compression.codec; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", check], check=False).returncode == 0
