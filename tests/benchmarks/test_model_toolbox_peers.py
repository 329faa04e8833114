"""Peers of the model toolbox, on real digits."""

from copy import deepcopy
from importlib.util import find_spec

import pytest
import torch
from model_toolbox.peers import nncodec, torch_pruning
from model_toolbox.peers.ladder import Ladder

from slimfleet.client.tasks import TASKS
from slimfleet.compression.model.central import central_task
from slimfleet.compression.model.slim_model import SlimModel
from slimfleet.compression.model.training.tuning import Tuning, tune


@pytest.fixture(scope="module")
def central():
    torch.set_num_threads(1)
    return central_task(TASKS["digits"](partitions=1))


@pytest.fixture(scope="module")
def model(central):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        built = central.task.build_model()
    return tune(SlimModel(built), central, Tuning(epochs=5, learning_rate=0.05))[0].model


def blurred(model, after):
    """A codec that loses everything from the rung `after` on, but for one rung farther up."""

    def coded(rung):
        other = SlimModel(model).copy().model
        if rung >= after and rung != after + 9:
            torch.nn.init.zeros_(other.fc.weight)
        return 1000 - rung, other

    return coded


@pytest.mark.parametrize("after", [-20, 1, 7, 8, 30])
def test_the_last_rung_before_the_first_loss_is_taken_and_luck_beyond_it_is_not(central, model, after):
    found = Ladder(model, central, 0.5).fewest(
        "blurred", {"to": blurred(model, after), "early": blurred(model, -60)}
    )
    assert (found.rung, found.bytes, found.setting) == (after - 1, 1001 - after, "to")
    assert found.validation_lost == found.test_lost == 0


def test_a_codec_that_always_loses_is_an_error(central, model):
    with pytest.raises(ValueError, match="nothing loses more"):
        Ladder(model, central, 0.5).fewest("nothing", {"": blurred(model, -10_000)})


def test_nncodec_and_ours_on_digits(central, model, monkeypatch):
    """`round` takes fewer bytes than packing does, and than NNCodec where that is installed."""
    monkeypatch.setattr(nncodec, "LAMBDAS", (1.0,))
    monkeypatch.setattr(nncodec, "PRICES", (0.1,))
    ladder = Ladder(model, central, 0.5)
    there = find_spec("nncodec") is not None
    rows = {
        name: ladder.fewest(name, codecs())
        for name, codecs in nncodec.methods(model, central).items()
        if there or not name.startswith("NNCodec")
    }
    others = [each.bytes for name, each in rows.items() if name in ("pack", "NNCodec")]
    assert rows["round"].bytes < min(others)
    assert all(row.validation_lost <= 0.5 for row in rows.values())


def test_torch_pruning_reaches_the_flops_that_ours_does(central, model):
    rows = torch_pruning.measured(model, central, 0.5, Tuning(epochs=1, learning_rate=0.02))
    assert [row.method for row in rows[-3:]] == list(torch_pruning.PEERS)
    for row in rows:
        assert 0.2 < row.flops <= 0.5  # of group norms whole groups go
        assert row.parameters < 1
        assert row.test_lost < 15


# torchao imports what torch has deprecated.
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_torchao_rounds_what_its_own_configuration_does(model):
    pytest.importorskip("torchao", reason="torchao is installed for `make bench-models` alone")
    from model_toolbox.peers.torchao import by_torchao
    from torchao.quantization import IntxWeightOnlyConfig, quantize_

    theirs = deepcopy(model)
    quantize_(theirs, IntxWeightOnlyConfig(weight_dtype=torch.int4))
    ours = by_torchao(model, 4, "symmetric")
    assert torch.equal(theirs.fc.weight.dequantize(), ours.fc.weight)
    assert not torch.equal(ours.conv1.weight, model.conv1.weight)
