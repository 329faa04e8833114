"""Rounding for the entropy coder: few bytes, outputs kept, what is left as it is."""

from dataclasses import replace

import pytest
import torch

from slimfleet.compression import BadInput
from slimfleet.compression.model.constraints import Grid, Mask
from slimfleet.compression.model.evaluation.divergence import divergence
from slimfleet.compression.model.saving.file import load_model, packed_bytes, save_model
from slimfleet.compression.model.slim_model import weights_of
from slimfleet.compression.model.techniques.quantise import Quantise, quantise
from slimfleet.compression.model.techniques.round import Round, round_weights
from slimfleet.compression.model.techniques.share import Share, share
from slimfleet.compression.model.training.tuning import Tuning
from slimfleet.compression.packing import Entry, SlimFile, ToError, write_slim


def apart(central, trained, slim):
    examples = central.validation
    with torch.no_grad():
        ours, theirs = (model(*examples.arguments) for model in (slim.model, trained.model))
    return float(divergence(ours, theirs, examples.targets))


def test_coarser_rounding_takes_fewer_bytes_and_the_outputs_go_further(central, trained):
    rounded = [round_weights(trained, central, Round(divergence=d))[0] for d in (0.001, 0.01, 0.1)]
    sizes = [packed_bytes(slim, central.task) for slim in rounded]
    distances = [apart(central, trained, slim) for slim in rounded]
    assert sizes == sorted(sizes, reverse=True)
    assert distances == sorted(distances)
    assert 0.0003 < distances[0] < 0.005
    assert sizes[1] < 0.12 * 4 * sum(p.numel() for p in trained.model.parameters())


def test_inputs_and_a_price_on_bits_pay(central, trained, tmp_path):
    """Against packing to an error: a fifth fewer bytes at no more divergence."""
    aware, _ = round_weights(trained, central, Round(divergence=0.01))
    for nmse in (0.01, 0.005, 0.0025):
        path = tmp_path / f"{nmse}.slim"
        state = trained.model.state_dict()
        packed = write_slim(path, [Entry(n, t.numpy(), ToError(nmse)) for n, t in state.items()])
        plain = trained.copy()
        with SlimFile.open(path) as file:
            plain.model.load_state_dict({name: torch.tensor(file.tensor(name)) for name in state})
        if apart(central, trained, plain) <= apart(central, trained, aware):
            assert packed_bytes(aware, central.task) < 0.8 * packed.bytes
            return
    pytest.fail("no packing is as near")


def loaded_again(central, slim, folder):
    path = folder / "model.slim"
    save_model(slim, path, central.task)
    return replace(slim, model=load_model(path, central.task))


def test_what_is_stored_is_what_was_measured(central, trained, tmp_path):
    rounded, report = round_weights(trained, central, Round())
    loaded = loaded_again(central, rounded, tmp_path).model.state_dict()
    for name, tensor in rounded.model.state_dict().items():
        assert torch.equal(loaded[name], tensor)
    assert {each.layer for each in report.changed} == weights_of(trained.model).keys()


def test_a_loss_is_kept_to(central, trained):
    before = central.validated(trained.model).accuracy
    rounded, report = round_weights(trained, central, Round(loss=1.0))
    finer, _ = round_weights(trained, central, Round(loss=0.3))
    assert central.validated(rounded.model).accuracy >= before - 0.01
    assert packed_bytes(rounded, central.task) < packed_bytes(finer, central.task)
    assert "rounding" in report.plots


def test_masked_weights_stay_zero_and_settled_ones_as_they_are(central, trained):
    first, second, *_ = weights_of(trained.model)
    free = (
        torch.rand(weights_of(trained.model)[first].shape, generator=torch.Generator().manual_seed(0)) > 0.5
    )
    masked = trained.constrained({first: Mask(free)})
    quantised, _ = quantise(trained, central, Quantise(weights=4))
    mixed = masked.constrained({second: quantised.constraints[second]})
    rounded, report = round_weights(mixed, central, Round(divergence=0.001))
    weights = weights_of(rounded.model)
    assert not weights[first][~free].any()
    assert weights[first][free].any()
    assert torch.allclose(
        weights[second], weights_of(mixed.model)[second], rtol=2**-7
    )  # its steps are shorter
    assert [(each.layer, each.change) for each in report.whole] == [(second, "it obeys a grid already")]


def test_a_file_has_so_many_bits_a_parameter(central, trained):
    parameters = sum(p.numel() for p in trained.model.parameters())
    for bits in (4.0, 2.0):
        rounded, _ = round_weights(trained, central, Round(bits=bits))
        assert 0.93 * bits < 8 * packed_bytes(rounded, central.task) / parameters <= bits


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"bits": 0.01}, r"^round cannot hold a parameter in 0\.01 bits at the coarsest steps: allow more$"),
        ({"bits": 2.0, "loss": 1.0}, r"^round: loss and bits are both given, .*: leave one out$"),
    ],
)
def test_what_cannot_be_done_is_said_in_one_line(central, trained, settings, message):
    with pytest.raises(BadInput, match=message):
        round_weights(trained, central, Round(**settings))


def test_training_on_the_grids_brings_back_what_coarse_ones_lose(taught, trained):
    coarse = Round(bits=0.9)
    rounded, _ = round_weights(trained, taught, coarse)
    tuning = Tuning(epochs=3, optimizer="adamw", learning_rate=0.003, soft_labels=0.7)
    tuned, report = round_weights(trained, taught, replace(coarse, tuning=tuning))
    assert taught.validated(tuned.model).loss < 0.8 * taught.validated(rounded.model).loss
    assert packed_bytes(tuned, taught.task) < 1.3 * packed_bytes(rounded, taught.task)
    assert report.steps == 3 * 21
    weights = dict(tuned.model.named_parameters())
    for name, grid in tuned.constraints.items():
        assert torch.equal(grid.obeyed(weights[name].detach()), weights[name].detach())


def test_grids_and_codebooks_keep_their_levels_with_shorter_steps_and_values(central, trained):
    quantised, _ = quantise(trained, central, Quantise(weights=4))
    short, report = round_weights(quantised, central, Round(mantissa=3))
    assert not report.changed
    for name, grid in quantised.constraints.items():
        now = short.constraints[name]
        assert isinstance(grid, Grid)
        assert isinstance(now, Grid)
        weights = weights_of(short.model)[name].detach(), weights_of(quantised.model)[name].detach()
        assert torch.equal(now.levels(weights[0]), grid.levels(weights[1]))
        assert not (now.step.view(torch.int32) & (1 << 20) - 1).any()
    assert packed_bytes(short, central.task) < packed_bytes(quantised, central.task)
    shared, _ = share(trained, central, Share(values=8, tuning=Tuning(epochs=0)))
    short, _ = round_weights(shared, central, Round(mantissa=3))
    for name, each in shared.constraints.items():
        assert torch.equal(each.obeyed(weights_of(short.model)[name]), weights_of(short.model)[name])


def test_vectors_keep_so_many_bits(central, trained):
    rounded, _ = round_weights(trained, central, Round(mantissa=4))
    for name, tensor in rounded.model.state_dict().items():
        if tensor.is_floating_point() and name not in rounded.constraints:
            assert not (tensor.view(torch.int32) & (1 << 19) - 1).any(), name
