"""fedjax: `fedjax_peer.py MODEL COHORTS FOLDER`."""

import sys
import time
from pathlib import Path

import jax
import numpy as np
import torch

jax.tree_map = jax.tree_util.tree_map  # which fedjax 0.0.17 still calls
jax.tree_leaves = jax.tree_util.tree_leaves
jax.tree_multimap = jax.tree_util.tree_map

import fedjax  # noqa: E402
from fedjax.algorithms import fed_avg  # noqa: E402
from jax import numpy as jnp  # noqa: E402
from work import BATCH, LEARNING_RATE, Cohorts, finish, first  # noqa: E402


def logits(model, weights, inputs):
    if model == "cnn":
        for name in ("conv1", "conv2"):
            inputs = jax.lax.conv_general_dilated(inputs, weights[f"{name}.weight"], (1, 1), "SAME")
            inputs = jax.nn.relu(inputs + weights[f"{name}.bias"][None, :, None, None])
            inputs = jax.lax.reduce_window(inputs, -jnp.inf, jax.lax.max, (1, 1, 2, 2), (1, 1, 2, 2), "VALID")
        inputs = inputs.reshape(len(inputs), -1)
    hidden = jax.nn.relu(inputs @ weights["fc1.weight"].T + weights["fc1.bias"])
    return hidden @ weights["fc2.weight"].T + weights["fc2.bias"]


def main(model: str, cohorts: Cohorts, folder: Path) -> None:
    def loss(weights, batch, rng):
        scores = jax.nn.log_softmax(logits(model, weights, batch["x"]))
        return -jnp.mean(jnp.take_along_axis(scores, batch["y"][:, None], 1))

    algorithm = fed_avg.federated_averaging(
        jax.grad(loss),
        fedjax.optimizers.sgd(LEARNING_RATE),
        fedjax.optimizers.sgd(1.0),
        fedjax.ShuffleRepeatBatchHParams(batch_size=BATCH, num_epochs=1, skip_shuffle=True),
    )
    state = algorithm.init(
        {name: jnp.array(w.detach().numpy()) for name, w in first(model).named_parameters()}
    )
    ends_s = []
    for number in range(len(cohorts.devices)):
        clients = []
        for place in range(cohorts.devices.shape[1]):
            inputs, labels = cohorts.data(model, number, place)
            data = fedjax.ClientDataset({"x": inputs.numpy(), "y": labels.numpy()})
            clients.append((b"%d" % place, data, jax.random.PRNGKey(place)))
        state, _ = algorithm.apply(state, clients)
        jax.block_until_ready(state.params)
        ends_s.append(time.perf_counter())
    finish(
        "fedjax", model, ends_s, {n: torch.from_numpy(np.array(w)) for n, w in state.params.items()}, folder
    )


main(sys.argv[1], Cohorts.read(Path(sys.argv[2])), Path(sys.argv[3]))
