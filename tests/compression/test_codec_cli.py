"""slimfleet-compress as a person calls it."""

import json
import subprocess
import sys

import numpy as np
import pytest

from slimfleet.compression import cli
from slimfleet.compression.codec import CodecSpec, encode
from slimfleet.compression.wire import Envelope

# Flower holds typer at a version that uses names which Click has deprecated.
pytestmark = pytest.mark.filterwarnings("ignore:.*will be removed in Click 9:DeprecationWarning")


@pytest.fixture
def compress(monkeypatch, capsys):
    """Run the command in this process: exit code, stdout, stderr."""

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["slimfleet-compress", *map(str, arguments)])
        with pytest.raises(SystemExit) as caught:
            cli.main()
        output = capsys.readouterr()
        return caught.value.code, output.out, output.err

    return run


@pytest.fixture
def file(tmp_path, update):
    np.savez(tmp_path / "update.npz", **update)
    return tmp_path / "update.npz"


def test_several_targets_as_json(compress, file, update):
    code, out, err = compress("update", file, "--nmse", "0.3", "0.1", "0.03", "--json")
    points = json.loads(out)
    assert (code, err) == (0, "")
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


def test_a_limit_of_bytes_as_a_table(compress, file):
    code, out, _ = compress("update", file, "--bytes", "300")
    assert code == 0
    assert "update.npz" in out


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
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(compress, file, tmp_path, arguments, word):
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
    }
    code, out, err = compress(*(argument.format(**places) for argument in arguments))
    assert code == 2
    assert out == ""
    assert len(err.splitlines()) == 1
    assert word in err


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
