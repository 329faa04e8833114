"""Checked task: a user's task, where every member answers as `Task` says or is refused in one line.

The line names the task, the member and the cause. What a member raises stays attached as the cause of the BadInput.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import deepcopy
from math import isfinite, isnan
from operator import index
from typing import TYPE_CHECKING, Any, cast

from slimfleet.compression.errors import BadInput
from slimfleet.compression.example_targets import fitting_targets
from slimfleet.compression.foreign_text import foreign_text
from slimfleet.compression.modes import evaluating
from slimfleet.compression.task import Evaluation, Examples, Task

if TYPE_CHECKING:
    from torch import Tensor, nn

LONGEST_CAUSE = 300
"""Characters of an exception's message that are repeated."""

LONGEST_NAME = 64

TRIAL_EXAMPLES = 8
"""Examples of the trial step; batch normalisation needs more than one."""

STEPS = 2
"""Steps of that trial; the second fails where a model keeps a gradient from one batch to the next."""

BUILDS = 3
"""Times that a model is built to see whether it is always the same."""

_ROUNDING = 1e-6
"""How far a mean of float32 may lie above 1."""


class BadTask(BadInput):
    """A task, or other code of the user's own, did not do what it must."""


@contextmanager
def blamed(reference: str, member: str, kind: str = "task") -> Iterator[None]:
    """Turn whatever is raised inside, `sys.exit` included, into a BadTask that names the code and its `member`."""
    try:
        yield
    except (BadTask, KeyboardInterrupt):
        raise
    except BaseException as error:
        raise BadTask(f"{kind} {reference!r}, {member}: {cause(error)}") from error


def cause(error: BaseException) -> str:
    """An exception in one line."""
    try:
        message = " ".join(str(error).split())
    except Exception:  # noqa: BLE001 - a foreign __str__ may raise anything
        message = ""
    if isinstance(error, SystemExit):
        return f"it ended the program (sys.exit({foreign_text(message, LONGEST_CAUSE)}))"
    if isinstance(error, BadInput):
        return foreign_text(message, LONGEST_CAUSE)
    kind = type(error).__name__
    return f"{kind}: {foreign_text(message, LONGEST_CAUSE)}" if message else kind


def label_of(task: Task) -> str:
    """What messages call a task: what its user calls it, else its name."""
    return task.reference if isinstance(task, CheckedTask) else task.name


class CheckedTask:
    """The task `wrapped`, which a person calls `reference`."""

    def __init__(self, wrapped: Task, reference: str) -> None:
        self.wrapped = wrapped
        self.reference = reference
        self._architecture: bytes | None = None
        self._targets: Tensor | None = None

    @property
    def name(self) -> str:
        """A text of one line."""
        with blamed(self.reference, "name"):
            name = self.wrapped.name
        if not isinstance(name, str) or not name.isprintable() or not 0 < len(name) <= LONGEST_NAME:
            raise self._bad(
                "name", f"is {_shown(name)}: must be a text of 1 to {LONGEST_NAME} printable characters"
            )
        return name

    @property
    def partitions(self) -> int:
        """A whole number from 1."""
        with blamed(self.reference, "partitions"):
            partitions = index(self.wrapped.partitions)
        if partitions < 1:
            raise self._bad("partitions", f"is {partitions}: must be at least 1")
        return partitions

    def build_model(self) -> nn.Module:
        """A model on the CPU with something to train, of the same architecture at every call."""
        from slimfleet.compression.limits import check_sizes, check_values
        from slimfleet.compression.tensors import schema_of, tensors_of

        with blamed(self.reference, "build_model"):
            model = self.wrapped.build_model()
        self._settle(model)
        self._check_model(model)
        with blamed(self.reference, "build_model"):
            schema = schema_of(model)
            check_sizes(schema)
            check_values(schema, tensors_of(model))
            architecture = schema.digest
        if architecture != (self._architecture or architecture):
            raise self._bad(
                "build_model", "gives a model with other tensors than before: must always be the same"
            )
        self._architecture = architecture
        return model

    def example_inputs(self) -> tuple[Tensor, ...]:
        """Tensors on the CPU, each a batch of one."""
        with blamed(self.reference, "example_inputs"):
            inputs = self.wrapped.example_inputs()
        if not isinstance(inputs, tuple | list) or not inputs:
            raise self._bad("example_inputs", f"gives {_shown(inputs)}: must be a tuple of tensors")
        for tensor in inputs:
            self._check_tensor("example_inputs", tensor, "a tensor")
            if len(tensor) != 1:
                raise self._bad("example_inputs", f"gives a batch of {len(tensor)}: must be a batch of one")
        return tuple(inputs)

    def example_targets(self) -> Tensor:
        """Targets of a batch of one: those of the task, else zeros that its loss takes, else the first of load(0)."""
        import torch

        if self._targets is None:
            with torch.random.fork_rng(devices=[]):
                outputs = self._outputs_of(self.build_model(), self._pairs(), "example_inputs")
            self._targets = self._targets_for(outputs)
        return self._targets

    def load(self, partition: int) -> Examples:
        """As many of each input as targets, at least one, on the CPU, without NaN."""
        member = f"load({partition})"
        with blamed(self.reference, member):
            examples = self.wrapped.load(partition)
        return self._checked_examples(member, examples)

    @property
    def validation(self) -> Callable[[], Examples] | None:
        """The task's own `validation`, checked as `load` is; None where it has none."""
        return self._validation if self._has("validation") else None

    @property
    def score(self) -> Callable[[Any, Tensor], float] | None:
        """The task's own `score`, of which the result must be a number from 0 to 1; None where it has none."""
        return self._score if self._has("score") else None

    def loss(self, outputs: Any, targets: Tensor) -> Tensor:
        """A 0-d tensor with a gradient, wherever the outputs have one."""
        import torch

        of = "" if isinstance(outputs, torch.Tensor) else f" of what the model gives, {_shown(outputs)}"
        with blamed(self.reference, f"loss{of}"):
            value = self.wrapped.loss(outputs, targets)
        if not isinstance(value, torch.Tensor):
            raise self._bad("loss", f"gives {_shown(value)}: must be a tensor")
        if value.dim() or not value.is_floating_point():
            raise self._bad("loss", f"gives {_shown(value)}: must be one float, the mean over the batch")
        if torch.is_grad_enabled() and not value.requires_grad:
            raise self._bad("loss", "has no gradient: it does not depend on the model's parameters")
        return value

    @property
    def evaluate(self) -> Callable[[nn.Module], Evaluation] | None:
        """The task's own `evaluate`, checked; None where it has none."""
        return self._evaluate if self._has("evaluate") else None

    def _evaluate(self, model: nn.Module) -> Evaluation:
        """A loss, NaN of a model that has diverged, and an accuracy from 0 to 1, or None."""
        with blamed(self.reference, "evaluate"):
            found = cast(Any, self.wrapped).evaluate(model)
        if not isinstance(found, Evaluation):
            raise self._bad("evaluate", f"gives {_shown(found)}: must be Evaluation(loss, accuracy)")
        loss = self._number("evaluate", "loss", found.loss)
        if found.accuracy is None:
            return Evaluation(loss)
        return Evaluation(loss, self._share("evaluate", "accuracy", found.accuracy))

    def rehearse(self, partitions: int, seed: int) -> None:
        """Use every member as a run on `partitions` devices will, so that what is wrong is said before it begins."""
        import torch

        if self.partitions < partitions:
            raise self._bad("partitions", f"is {self.partitions}: must be at least the {partitions} devices")
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            model = self.build_model()
            self.rehearse_model(model)
            self.rehearse_training(model, partitions)
            judge = self.evaluate
            evaluation = None if judge is None else judge(self._copy(model).eval())
        if evaluation is not None and not isfinite(evaluation.loss):
            raise self._bad("evaluate", f"gives a loss of {evaluation.loss} for the untrained model")

    def rehearse_model(self, model: nn.Module) -> None:
        """Build the model again, and take a step with a copy of `model` on the example inputs."""
        import torch

        with torch.random.fork_rng(devices=[]):
            for _ in range(BUILDS - 1):
                self.build_model()
        tried = self._copy(model)
        for _ in range(STEPS):
            self._loss_of(tried, self._pairs(), "example_inputs")
        self._check_shapes(model, tried)

    def rehearse_training(self, model: nn.Module, partitions: int) -> None:
        """Take a step on a few examples of partition 0, and compute the loss of two of every other."""
        import torch

        copied = self._copy(model)
        for partition in range(partitions):
            examples = self.load(partition)
            few = _at_least_two(examples, TRIAL_EXAMPLES if partition == 0 else 2)
            with torch.set_grad_enabled(partition == 0):
                value = self._loss_of(copied, few.arguments, f"load({partition})", few.targets)
            if not isfinite(value):
                raise self._bad("loss", f"is {value} for the untrained model on load({partition})")

    def _validation(self) -> Examples:
        with blamed(self.reference, "validation"):
            examples = cast(Any, self.wrapped).validation()
        return self._checked_examples("validation", examples)

    def _score(self, outputs: Any, targets: Tensor) -> float:
        with blamed(self.reference, "score"):
            found = cast(Any, self.wrapped).score(outputs, targets)
        return self._share("score", "score", found)

    def _checked_examples(self, member: str, examples: Any) -> Examples:
        """As many of each input as targets, at least one, on the CPU, without NaN."""
        if not isinstance(examples, Examples):
            raise self._bad(member, f"gives {_shown(examples)}: must be Examples(inputs, targets)")
        if not examples.arguments:
            raise self._bad(member, "gives no inputs: must be a tensor, or a tuple of tensors")
        for tensor in examples.arguments:
            self._check_tensor(member, tensor, "inputs")
        self._check_tensor(member, examples.targets, "targets")
        targets = len(examples.targets)
        for tensor in examples.arguments:
            if len(tensor) != targets:
                raise self._bad(
                    member, f"gives {len(tensor)} inputs and {targets} targets: must be as many of both"
                )
        if not targets:
            raise self._bad(member, "gives no examples: must be at least one")
        return examples

    def _loss_of(
        self, model: nn.Module, inputs: tuple[Tensor, ...], source: str, targets: Tensor | None = None
    ) -> float:
        """Train `model` on a batch from the member `source`; targets that are left out are stood in for."""
        import torch

        with torch.random.fork_rng(devices=[]):
            outputs = self._outputs_of(model, inputs, source)
            if targets is None:
                targets = _repeated(self._targets_for(outputs), len(inputs[0]))
            value = self.loss(outputs, targets)
            if value.requires_grad:
                with blamed(self.reference, "the gradient of loss"):
                    value.backward()  # type: ignore[no-untyped-call]
        return float(value.detach())

    def _outputs_of(self, model: nn.Module, inputs: tuple[Tensor, ...], source: str) -> Any:
        """What `model` gives in training: a tensor, batch first, or a structure with one in it."""

        from slimfleet.compression.pruning.nested import tensors_in

        with blamed(self.reference, f"the model on {source}"):
            outputs = model.train()(*inputs)
        if not any(tensor.dim() for tensor in tensors_in(outputs)):
            raise self._bad(
                f"the model on {source}",
                f"gives {_shown(outputs)}: must be a tensor, batch first, or a structure with such tensors",
            )
        return outputs

    def _pairs(self) -> tuple[Tensor, ...]:
        """The example inputs as a batch of two: batch normalisation needs that many."""
        return tuple(_repeated(tensor, 2) for tensor in self.example_inputs())

    def _targets_for(self, outputs: Any) -> Tensor:
        """The example targets; `outputs` are those of a batch of two."""
        if self._targets is None:
            self._targets = (
                self._own_targets() if self._has("example_targets") else self._found_targets(outputs)
            )
        return self._targets

    def _has(self, member: str) -> bool:
        """Whether the task has an optional member."""
        with blamed(self.reference, member):
            return getattr(self.wrapped, member, None) is not None

    def _own_targets(self) -> Tensor:
        with blamed(self.reference, "example_targets"):
            targets = cast(Any, self.wrapped).example_targets()
        self._check_tensor("example_targets", targets, "it")
        if len(targets) != 1:
            raise self._bad("example_targets", f"gives a batch of {len(targets)}: must be a batch of one")
        return cast("Tensor", targets)

    def _found_targets(self, outputs: Any) -> Tensor:
        try:
            return fitting_targets(self.loss, outputs)
        except BadTask as refusal:
            # A loss that takes no zeros is shown real targets, where there are any on this machine.
            try:
                return self.load(0).targets[:1]
            except BadTask:
                raise BadTask(
                    f"{refusal}; give the task example_targets(), the targets of a batch of one"
                ) from (refusal.__cause__)

    def _copy(self, model: nn.Module) -> nn.Module:
        """A copy of a model, which must allow it: sub-models are made of copies."""
        with blamed(self.reference, "build_model, copied"):
            return deepcopy(model)

    def _settle(self, model: object) -> None:
        """Give lazy layers their shapes, and cut results of computations (old weight norm) from their gradients."""
        import torch
        from torch.nn.parameter import is_lazy

        if not isinstance(model, torch.nn.Module):
            return
        with blamed(self.reference, "build_model"):
            if any(is_lazy(tensor) for tensor in (*model.parameters(), *model.buffers())):
                with (
                    blamed(self.reference, "the model on example_inputs"),
                    torch.no_grad(),
                    evaluating(model),
                ):
                    model(*self._pairs())
            for module in model.modules():
                for name, value in vars(module).items():
                    if isinstance(value, torch.Tensor) and value.grad_fn is not None:
                        setattr(module, name, value.detach())  # a copy of the model must be possible

    def _check_model(self, model: object) -> None:
        import torch

        if not isinstance(model, torch.nn.Module) or isinstance(model, torch.jit.ScriptModule):
            raise self._bad("build_model", f"gives {_shown(model)}: must be a torch.nn.Module, not scripted")
        with blamed(self.reference, "build_model"):
            state, parameters = model.state_dict(), dict(model.named_parameters(remove_duplicate=False))
            for name, tensor in state.items():
                if isinstance(tensor, torch.Tensor):  # what else a layer keeps stays on each machine
                    self._check_placed(tensor, "build_model", repr(name))
            missing = [name for name in parameters if name not in state]
            if missing:
                raise self._bad("build_model", f"gives a model whose state_dict lacks {missing[0]!r}")

    def _check_shapes(self, model: nn.Module, trained: nn.Module) -> None:
        """Refuse a model of which a step in training gives a tensor another shape: both ends must agree on it."""
        before = {name: getattr(tensor, "shape", None) for name, tensor in model.state_dict().items()}
        after = {name: getattr(tensor, "shape", None) for name, tensor in trained.state_dict().items()}
        for name in before | after:
            if before.get(name) != after.get(name):
                raise self._bad(
                    "the model on example_inputs",
                    f"training gives {name!r} the shape {after.get(name)}, it had {before.get(name)}: "
                    "train it once on them in build_model",
                )

    def _check_placed(self, tensor: Tensor, member: str, what: str) -> None:
        """Refuse a tensor that is not in this machine's memory, or that has a history."""
        if tensor.device.type != "cpu":
            raise self._bad(
                member, f"{what} is a tensor of {tensor.device.type}: must be a plain tensor on the CPU"
            )
        if tensor.grad_fn is not None:
            raise self._bad(
                member, f"{what} is the result of a computation with a gradient: must be detached"
            )

    def _check_tensor(self, member: str, value: Any, what: str) -> None:
        """Refuse data that are not a plain tensor in this machine's memory, of one dimension or more, without NaN."""
        import torch

        if not isinstance(value, torch.Tensor):
            raise self._bad(member, f"{what} is {_shown(value)}: must be a tensor")
        self._check_placed(value, member, what)
        if value.layout is not torch.strided:
            raise self._bad(member, f"{what} is a tensor of {value.layout}: must be a plain tensor")
        if value.is_quantized or value.is_complex():
            raise self._bad(member, f"{what} is {_shown(value)}: must hold plain numbers")
        if not value.dim():
            raise self._bad(member, f"{what} is {_shown(value)}: must have a first dimension, the examples")
        # A sum is NaN where one of its terms is, and takes a fraction of the time.
        if value.is_floating_point() and isnan(value.sum()) and bool(torch.isnan(value).any()):
            raise self._bad(member, f"{what} holds NaN")

    def _number(self, member: str, what: str, value: Any) -> float:
        """`value` as a float; 0-d tensors and numpy's numbers are numbers too."""
        if isinstance(value, str) or not hasattr(value, "__float__"):
            raise self._bad(member, f"{what} is {_shown(value)}: must be a number")
        with blamed(self.reference, f"{member}, {what}"):
            return float(value)

    def _share(self, member: str, what: str, value: Any) -> float:
        """`value` as a number from 0 to 1."""
        share = self._number(member, what, value)
        if not 0 <= share <= 1 + _ROUNDING:
            kind = f"{'an' if what[0] in 'aeiou' else 'a'} {what}"
            raise self._bad(member, f"gives {kind} of {share:g}: must be from 0 to 1")
        return min(share, 1.0)

    def _bad(self, member: str, problem: str) -> BadTask:
        return BadTask(f"task {self.reference!r}, {member}: {problem}")


def _repeated(tensor: Tensor, times: int) -> Tensor:
    return tensor.repeat(times, *[1] * (tensor.dim() - 1))


def _at_least_two(examples: Examples, most: int) -> Examples:
    """The first examples, the only one twice: batch normalisation needs two."""
    import torch

    few = examples.take(slice(most))
    return few if len(few) > 1 else examples.take(torch.zeros(2, dtype=torch.long))


def _shown(value: object) -> str:
    """A value of any type, in a few words."""
    shape = getattr(value, "shape", None)
    if shape is not None and hasattr(value, "dtype"):
        kind = str(getattr(value, "dtype", "")).removeprefix("torch.")
        return f"a {type(value).__name__} of {kind}{list(shape)}"
    if value is None or isinstance(value, str | int | float | bool):
        return foreign_text(repr(value), 60)
    kind = type(value).__name__
    return f"{'an' if kind[:1].lower() in set('aeiou') else 'a'} {kind}"
