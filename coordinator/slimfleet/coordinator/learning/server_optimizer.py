"""Server optimiser: from the mean update to the next global model, and the average of models over rounds.

The mean update is a pseudo-gradient: an optimiser takes minus it as the gradient (Reddi et al. 2021, arXiv
2003.00295, alg. 2). SGD with learning rate 1 and no momentum is FedAvg; with momentum, FedAvgM; Adam is FedAdam.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from slimfleet.compression import ModelSchema, Tensors
from slimfleet.compression.checked_task import BadTask, blamed
from slimfleet.compression.codec.quantise.grid import LARGEST_VALUE
from slimfleet.compression.difference import moved, unset
from slimfleet.compression.edge.named import found, is_own
from slimfleet.compression.training import Sgd
from slimfleet.coordinator.receiving.checks import is_variance
from slimfleet.coordinator.settings import ServerSettings


class Optimizer(Protocol):
    """What is used of torch's optimisers."""

    def step(self) -> object:
        """Move the parameters by their gradients."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """What outlasts a step, by number of parameter and name."""
        ...

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from what `state_dict` returned."""
        ...


def _fedavg(parameters: list[torch.Tensor], settings: ServerSettings) -> Optimizer:
    return Sgd(parameters, settings.learning_rate, settings.momentum)


def _fedadam(parameters: list[torch.Tensor], settings: ServerSettings) -> Optimizer:
    # betas and the large epsilon are those of Reddi et al. 2021, section 5 and appendix D.
    return torch.optim.Adam(parameters, lr=settings.learning_rate, betas=(0.9, 0.99), eps=1e-3)


OPTIMIZERS: Mapping[str, Callable[[list[torch.Tensor], ServerSettings], Optimizer]] = {
    "fedavg": _fedavg,
    "fedadam": _fedadam,
}
"""Server optimisers by the name that `server.optimizer` gives them. A new one is one function and one line here."""


def _optimizer(parameters: list[torch.Tensor], settings: ServerSettings) -> Optimizer:
    """Raises BadInput, in one line, where a user's own cannot be imported or is no optimiser of these parameters."""
    name = settings.optimizer
    make = found("server.optimizer", name, OPTIMIZERS)
    if not is_own(name):
        return make(parameters, settings)
    with blamed(name, "when it is made", "server optimiser"):
        made: object = make(parameters, settings)
    if not isinstance(made, torch.optim.Optimizer):
        raise BadTask(
            f"server.optimizer = {name!r}: it gives a {type(made).__name__}, must be a torch.optim.Optimizer"
        )
    # A checkpoint tells the parameters by their order.
    taken = [id(parameter) for group in made.param_groups for parameter in group["params"]]
    if taken != [id(parameter) for parameter in parameters]:
        raise BadTask(
            f"server.optimizer = {name!r}: it must take all the parameters that it is given, in their order"
        )
    return made


class ServerOptimizer:
    """The global model, its optimiser state and its average over rounds."""

    def __init__(self, tensors: Tensors, schema: ModelSchema, settings: ServerSettings) -> None:
        self._schema = schema
        self.settings = settings
        self._trained = {
            t.name: torch.from_numpy(tensors[t.name].copy()).requires_grad_() for t in schema.weights
        }
        self._rest = {t.name: tensors[t.name].copy() for t in schema.plain}
        self._optimizer = _optimizer(list(self._trained.values()), settings)
        self._average = {name: value.copy() for name, value in tensors.items()}
        self._steps = 0

    def step(self, mean_update: Tensors) -> None:
        """Move the global model by one round's mean update (full shapes, float64); what it lacks stays."""
        for name, parameter in self._trained.items():
            parameter.grad = -torch.from_numpy(np.asarray(mean_update[name])).to(parameter.dtype)
        self._move()
        with torch.no_grad():
            for parameter in self._trained.values():
                limit = min(torch.finfo(parameter.dtype).max, LARGEST_VALUE)
                parameter.clamp_(-limit, limit)
        self._rest |= {
            name: _moved(name, value, np.asarray(mean_update[name]))
            for name, value in self._rest.items()
            if name in mean_update
        }
        self._steps += 1
        self._update_average()

    def _move(self) -> None:
        if not is_own(self.settings.optimizer):
            self._optimizer.step()
            return
        with blamed(self.settings.optimizer, "step", "server optimiser"):
            self._optimizer.step()
        for name, parameter in self._trained.items():
            if not bool(torch.isfinite(parameter).all()):
                raise BadTask(
                    f"server optimiser {self.settings.optimizer!r}, step: tensor {name!r} is no longer finite"
                )

    def model(self) -> Tensors:
        """The global model that devices continue from."""
        trained = {name: p.detach().numpy().copy() for name, p in self._trained.items()}
        return {
            t.name: trained[t.name] if t.name in trained else self._rest[t.name] for t in self._schema.tensors
        }

    def published(self) -> Tensors:
        """The model that is evaluated and shipped: the average over rounds, or the last one."""
        return {name: value.copy() for name, value in self._average.items()}

    def _update_average(self) -> None:
        # Early models are poor: the average forgets faster at first, as moving averages in practice do.
        decay = min(self.settings.averaging, self._steps / (self._steps + 9.0))
        for name, value in self.model().items():
            self._average[name] = _averaged(self._average[name], value, decay)

    def state(self) -> Tensors:
        """Everything a checkpoint needs, as plain arrays."""
        arrays = {f"model/{k}": v for k, v in self.model().items()}
        arrays |= {f"average/{k}": v for k, v in self._average.items()}
        names = list(self._trained)
        for index, slots in self._optimizer.state_dict()["state"].items():
            for slot, value in slots.items():
                if value is not None:
                    self._check_slot(slot, value, self._trained[names[index]])
                    arrays[f"optimizer/{names[index]}/{slot}"] = torch.as_tensor(value).numpy().copy()
        arrays["steps"] = np.array(self._steps, np.int64)
        return arrays

    def _check_slot(self, slot: str, value: object, parameter: torch.Tensor) -> None:
        """A checkpoint holds numbers, and tensors of the shape of the parameter that they belong to."""
        if isinstance(value, int | float) or (
            isinstance(value, torch.Tensor) and value.shape in ((), parameter.shape)
        ):
            return
        raise BadTask(
            f"server optimiser {self.settings.optimizer!r}: its state {slot!r} cannot be kept in a checkpoint: "
            "must be a number or a tensor of the shape of its parameter"
        )

    def restore(self, arrays: Tensors) -> None:
        """Restore what `state` returned."""
        with torch.no_grad():
            for name, parameter in self._trained.items():
                parameter.copy_(torch.from_numpy(arrays[f"model/{name}"]))
        self._rest = {name: arrays[f"model/{name}"].copy() for name in self._rest}
        self._average = {name: arrays[f"average/{name}"].copy() for name in self._average}
        self._steps = int(arrays["steps"])
        slots: dict[int, dict[str, torch.Tensor]] = {}
        names = {name: index for index, name in enumerate(self._trained)}
        for key, value in arrays.items():
            if key.startswith("optimizer/"):
                name, _, slot = key.removeprefix("optimizer/").rpartition("/")
                slots.setdefault(names[name], {})[slot] = torch.from_numpy(value.copy())
        groups = self._optimizer.state_dict()["param_groups"]
        self._optimizer.load_state_dict({"state": slots, "param_groups": groups})


def _averaged(average: NDArray[Any], value: NDArray[Any], decay: float) -> NDArray[Any]:
    """The moving average of a float tensor; integers, and what is not finite, have their last value."""
    if value.dtype.kind != "f":
        return value
    with np.errstate(invalid="ignore"):
        mean = np.asarray(decay * average + (1 - decay) * value, value.dtype)
    apart = unset(average) | unset(value)
    return np.asarray(np.where(apart, value, mean)) if apart.any() else mean


def _moved(name: str, value: NDArray[Any], change: NDArray[np.float64]) -> NDArray[Any]:
    """A buffer moves by the mean change, a counter by that rounded, a flag where more than half flipped it.

    A variance falls to zero at most.
    """
    if value.dtype == np.bool_:
        return np.asarray(value ^ (change > 0.5))
    if value.dtype.kind == "f":
        after = moved(value, change)
        return np.asarray(np.maximum(after, 0) if is_variance(name) and (value >= 0).all() else after)
    # Added as integers, since float64 does not hold those beyond 2**53; unsigned ones wrap as on the device.
    return np.asarray(value + np.rint(change).astype(np.int64).astype(value.dtype))
