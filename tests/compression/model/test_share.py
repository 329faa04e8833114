"""Codebooks: few values, none lost, none empty, and trained as values."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from slimfleet.compression import BadInput
from slimfleet.compression.model.slim_model import SlimModel, weights_of
from slimfleet.compression.model.techniques.quantise import Quantise, quantise
from slimfleet.compression.model.techniques.share import Share, clustered, share
from slimfleet.compression.model.techniques.sparsify import Sparsify, sparsify
from slimfleet.compression.model.training.tuning import Tuning, tune

NO_TUNING = Tuning(epochs=0)


def error(weight, places):
    count = int(places.max()) + 1
    means = torch.stack(
        [weight[places == k].mean() if (places == k).any() else torch.zeros(()) for k in range(count)]
    )
    return float((means[places] - weight).square().sum())


@given(
    seed=st.integers(0, 500),
    size=st.integers(1, 300),
    count=st.integers(1, 40),
    kind=st.sampled_from(["normal", "heavy", "few", "sparse"]),
)
@settings(max_examples=40, deadline=None)
def test_every_value_has_its_run_of_weights_and_none_is_empty(seed, size, count, kind):
    weight = torch.randn(size, generator=torch.Generator().manual_seed(seed))
    if kind == "heavy":
        weight = weight**5
    if kind == "few":
        weight = weight.round()
    if kind == "sparse":
        weight = weight * (weight.abs() > 0.7)
    places = clustered(weight, count)
    values = weight[weight != 0].unique()
    assert torch.equal(places == 0, weight == 0)
    assert int(places.max()) == min(count, len(values))
    used = torch.bincount(places)[1:]
    assert (used > 0).all()
    ordered = places[weight.argsort()]
    assert (ordered[ordered > 0].diff() >= 0).all()
    if len(values) <= count:
        assert error(weight, places) == pytest.approx(0, abs=1e-9)


def test_more_values_are_nearer_and_as_near_as_lloyd_from_many_starts():
    weight = torch.randn(2000, generator=torch.Generator().manual_seed(1)) ** 3
    errors = [error(weight, clustered(weight, count)) for count in (2, 4, 8, 16, 32)]
    assert errors == sorted(errors, reverse=True)
    from sklearn.cluster import KMeans

    peer = KMeans(16, n_init=10, random_state=0).fit(weight[:, None].numpy())
    assert errors[3] <= 1.25 * peer.inertia_


@pytest.mark.parametrize("weight", [torch.zeros(3, 4), torch.full((3, 4), 0.25), torch.empty(0, 4)])
def test_zeros_one_value_and_no_weights(weight):
    places = clustered(weight, 4)
    assert places.shape == weight.shape
    assert places.unique().numel() == min(weight.numel(), 1)


def test_recurrent_weights_are_shared_and_stay_so(toy):
    torch.manual_seed(0)

    class Sequence(nn.Module):
        def __init__(self):
            super().__init__()
            self.rnn, self.out = (
                nn.LSTM(5, 8, num_layers=2, batch_first=True, bidirectional=True),
                nn.Linear(16, 3),
            )

        def forward(self, x):
            return self.out(self.rnn(x)[0][:, -1])

    central = toy(torch.randn(60, 4, 5), targets=torch.randint(0, 3, (60,)))
    coded, report = share(SlimModel(Sequence()), central, Share(values=8, tuning=Tuning(epochs=2)))
    weights = weights_of(coded.model)
    assert len(report.changed) == len(weights) == 9
    before = {name: weight.detach().clone() for name, weight in weights.items()}
    later, _ = tune(
        coded, central, Tuning(epochs=3, optimizer="adamw", weight_decay=0.01, learning_rate=0.01)
    )
    for name, weight in weights_of(later.model).items():
        assert len(weight.unique()) <= 8
        assert torch.equal(later.constraints[name].obeyed(weight.detach()), weight)
    assert any(not torch.equal(w, before[name]) for name, w in weights_of(later.model).items())


def test_sixteen_values_lose_little_and_training_wins_back_what_three_lose(central, trained):
    many, _ = share(trained, central, Share(values=16, tuning=NO_TUNING))
    assert central.tested(many.model).accuracy >= central.tested(trained.model).accuracy - 0.01
    few, _ = share(trained, central, Share(values=3, tuning=NO_TUNING))
    tuned, report = share(
        trained, central, Share(values=3, tuning=Tuning(epochs=3, optimizer="adamw", learning_rate=0.003))
    )
    assert central.tested(tuned.model).loss < central.tested(few.model).loss
    assert report.steps > 0


def test_zeros_of_a_mask_stay_and_quantised_weights_are_refused(central, trained):
    sparse, _ = sparsify(trained, central, Sparsify(share=0.8, tuning=NO_TUNING))
    coded, _ = share(sparse, central, Share(values=4, tuning=Tuning(epochs=1)))
    for name, weight in weights_of(coded.model).items():
        assert (weight[~sparse.constraints[name].free] == 0).all()
        assert len(weight.unique()) <= 5
    rounded, _ = quantise(trained, central, Quantise())
    with pytest.raises(
        BadInput, match=r"^share finds no weights that are not quantised already: put it before .*$"
    ):
        share(rounded, central, Share())
