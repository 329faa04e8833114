"""pfl-research: `torchrun --nproc-per-node 2 pfl_peer.py MODEL COHORTS FOLDER`."""

import itertools
import sys
import time
from pathlib import Path

import torch
from pfl.aggregate.simulate import SimulatedBackend
from pfl.algorithm.base import NNAlgorithmParams
from pfl.algorithm.federated_averaging import FederatedAveraging
from pfl.callback.base import TrainingProcessCallback
from pfl.data.dataset import Dataset
from pfl.data.federated_dataset import FederatedDataset
from pfl.hyperparam.base import NNEvalHyperParams, NNTrainHyperParams
from pfl.internal.ops import get_ops
from pfl.internal.ops.selector import set_framework_module
from pfl.metrics import Metrics, Weighted
from pfl.model.pytorch import PyTorchModel
from torch import nn
from torch.nn import functional
from work import BATCH, LEARNING_RATE, Cohorts, finish, first

torch.set_num_threads(1)


class Judged(nn.Module):
    """A model with a loss, as pfl wants it."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def loss(self, inputs, targets, eval=False):
        return functional.cross_entropy(self.model(inputs), targets)

    def metrics(self, inputs, targets, eval=False):
        return {"loss": Weighted(self.loss(inputs, targets).item() * len(targets), len(targets))}


class Clock(TrainingProcessCallback):
    def __init__(self) -> None:
        self.ends_s = []

    def after_central_iteration(self, aggregate_metrics, model, *, central_iteration):
        self.ends_s.append(time.perf_counter())
        return False, Metrics()


def main(model: str, cohorts: Cohorts, folder: Path) -> None:
    from pfl.internal.ops import pytorch_ops

    set_framework_module(pytorch_ops)
    rounds, per_round = cohorts.devices.shape
    places = itertools.cycle(range(rounds * per_round))

    def data(place: int) -> Dataset:
        return Dataset(raw_data=list(cohorts.data(model, *divmod(place, per_round))))

    net = Judged(first(model))
    trained = PyTorchModel(
        net,
        local_optimizer_create=torch.optim.SGD,
        central_optimizer=torch.optim.SGD(net.parameters(), lr=1.0),
    )
    backend = SimulatedBackend(
        training_data=FederatedDataset(data, lambda: next(places)),
        val_data=FederatedDataset(data, lambda: 0),
    )
    clock = Clock()
    FederatedAveraging().run(
        algorithm_params=NNAlgorithmParams(
            central_num_iterations=rounds,
            evaluation_frequency=10**9,
            train_cohort_size=per_round,
            val_cohort_size=0,
        ),
        backend=backend,
        model=trained,
        model_train_params=NNTrainHyperParams(
            local_num_epochs=1, local_learning_rate=LEARNING_RATE, local_batch_size=BATCH
        ),
        model_eval_params=NNEvalHyperParams(local_batch_size=None),
        callbacks=[clock],
    )
    if get_ops().distributed.global_rank == 0:
        finish("pfl", model, clock.ends_s, dict(net.model.named_parameters()), folder)


main(sys.argv[1], Cohorts.read(Path(sys.argv[2])), Path(sys.argv[3]))
