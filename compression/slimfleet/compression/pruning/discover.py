"""Discovery of the channel groups of a model."""

from __future__ import annotations

import copy
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd

from slimfleet.compression.errors import BadInput
from slimfleet.compression.pruning.channels import Channels, Key, groups_of
from slimfleet.compression.pruning.groups import ChannelGroup, Discovery, LeftWhole, Size
from slimfleet.compression.pruning.passing import passing
from slimfleet.compression.pruning.relate import Relations, TooMuchWork
from slimfleet.compression.pruning.removable import Trial, in_a_line
from slimfleet.compression.pruning.sizes import Sightings
from slimfleet.compression.pruning.trace import follow
from slimfleet.compression.tensors import schema_of

MOST_LABELS = 400_000_000
"""Labels looked at in one discovery, at most."""


def discover(model: nn.Module, example_inputs: tuple[Tensor, ...]) -> Discovery:
    """The channel groups of `model`, in the order of its state dict, and what stays whole; `model` is not changed.

    `example_inputs` are what `model(*example_inputs)` takes, a batch of one is enough. The model runs once in
    evaluation and once in training mode, while labels follow its channels (see `rules`). Every group returned has been
    tried in both modes: with some of its channels removed the model computes what it computes with these channels set
    to zero. What fails, and what nothing is known about, is left whole, so it costs savings, never correctness.

    The work is bounded by counting it, not by a clock, so that all machines find the same. What a forward pass
    raises is a reason to leave the model whole. Raises BadInput for a model that cannot be copied, or whose tensors
    cannot be carried.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        schema_of(model)
        found = _Found.of(_copied(model))
        try:
            _follow_both_modes(found, example_inputs)
            trial = Trial(found.model, example_inputs, found.relations.multiplications // 3)
        except TooMuchWork:
            return found.nothing("finding its channels takes more work than is allowed")
        except Exception as error:  # noqa: BLE001 - a user's forward pass may raise anything
            return found.nothing(f"its channels could not be followed: {in_a_line(error)}")
        return _tried(found, trial)


def _copied(model: nn.Module) -> nn.Module:
    try:
        return copy.deepcopy(model)
    except Exception as error:
        raise BadInput(
            f"the model cannot be copied, which sub-models are made by: {in_a_line(error)}"
        ) from error


@dataclass(frozen=True, slots=True)
class _Found:
    """What one discovery has found out so far."""

    model: nn.Module
    channels: Channels
    sites: dict[Key, range]
    relations: Relations
    sightings: Sightings

    @classmethod
    def of(cls, model: nn.Module) -> _Found:
        channels = Channels()
        sites = _sites(model, channels)
        found = cls(model, channels, sites, Relations(channels, MOST_LABELS), Sightings())
        _couple_layers(found)
        return found

    def groups(self, inputs_first: bool = False) -> list[ChannelGroup]:
        """The groups that the labels make, before any trial; `inputs_first` as in `Sightings.sizes`."""
        order = list(self.model.state_dict())
        written = {_written(path, layer) for path, layer in self.model.named_modules()}
        found = groups_of(self.channels, self.sites, order, written)
        named = [(group, own) for group, own in found if group.size > 1]
        members = {root: group.name for group, own in named for root in own.tolist()}
        sizes: dict[str, list[Size]] = defaultdict(list)
        for name, size in self.sightings.sizes(self.channels.roots(), members, inputs_first):
            sizes[name].append(size)
        return [replace(group, sizes=tuple(sizes[group.name])) for group, _ in named]

    def nothing(self, reason: str) -> Discovery:
        """A discovery without groups."""
        return Discovery((), tuple(self._whole((), lambda _: reason)))

    def discovery(self, groups: Sequence[ChannelGroup], failures: dict[str, str]) -> Discovery:
        """`groups`, and every other layer with the reason why it is in none."""
        reasons = self.channels.reasons()
        roots = self.channels.roots()
        failed = {
            (member.tensor, member.dim, position): failures[group.name]
            for group in self.groups()
            if group.name in failures
            for member in group.members
            for position in member.positions.ravel().tolist()
        }

        def reason(site: tuple[str, int, int]) -> str:
            tensor, dim, position = site
            root = int(roots[self.sites[tensor, dim][position]])
            return reasons.get(root) or failed.get(site) or "they can only be removed all together"

        return Discovery(tuple(groups), tuple(self._whole(groups, reason)))

    def _whole(
        self, groups: Sequence[ChannelGroup], reason: Callable[[tuple[str, int, int]], str]
    ) -> Iterator[LeftWhole]:
        grouped: dict[Key, set[int]] = defaultdict(set)
        for group in groups:
            for member in group.members:
                grouped[member.tensor, member.dim].update(member.positions.ravel().tolist())
        for path, layer in self.model.named_modules():
            key = _written(path, layer)
            if key in self.sites:
                left = [p for p in range(len(self.sites[key])) if p not in grouped[key]]
                if left:
                    (why, _), *_ = Counter(reason((*key, p)) for p in left).most_common(1)
                    yield LeftWhole(path, len(left), why)


def _sites(model: nn.Module, channels: Channels) -> dict[Key, range]:
    """New labels for each dimension of each float tensor of a model; the names of one tied tensor share them."""
    sites: dict[Key, range] = {}
    first: dict[tuple[int, torch.Size], str] = {}
    for name, tensor in model.state_dict().items():
        if not isinstance(tensor, Tensor) or not tensor.is_floating_point() or not tensor.numel():
            continue
        tied = first.setdefault((tensor.data_ptr(), tensor.shape), name)
        for dim, size in enumerate(tensor.shape):
            if size > 1:
                sites[name, dim] = channels.fresh(size) if tied == name else sites[tied, dim]
    return sites


def _couple_layers(found: _Found) -> None:
    """Join and fix what torch's own layers demand beyond what their operators do."""
    for path, layer in found.model.named_modules():
        prefix = f"{path}." if path else ""
        own = [key for key in found.sites if key[0].startswith(prefix)]
        if isinstance(layer, nn.RNNBase) and not layer.proj_size:
            hidden = [list(found.sites[key]) for key in own if "weight_hh" in key[0] and key[1] == 1]
            for units in hidden[1:]:
                found.channels.join(np.array([hidden[0], units]).T)
        reason = _unshrinkable(layer)
        if reason:
            found.channels.fix(np.array([label for key in own for label in found.sites[key]]), reason)


def _unshrinkable(layer: nn.Module) -> str | None:
    """Why torch's own code cannot run a layer of this kind that lost channels; None where it can."""
    if isinstance(layer, nn.RNNBase) and layer.proj_size:
        return "a recurrent layer with projections has no place for another size"
    if isinstance(layer, nn.MultiheadAttention) and (layer.bias_k is not None or layer.add_zero_attn):
        return "attention with extra key positions cannot lose heads"
    return None


def _written(path: str, layer: nn.Module) -> Key:
    """The tensor and dimension that the output channels of a layer index."""
    names: tuple[tuple[type[nn.Module], str, int], ...] = (
        (_ConvTransposeNd, "weight", 1),
        (_ConvNd, "weight", 0),
        (nn.Linear, "weight", 0),
        (nn.Bilinear, "weight", 0),
        (nn.Embedding, "weight", 1),
        (nn.EmbeddingBag, "weight", 1),
        (nn.RNNBase, "weight_hh_l0", 1),
        (nn.MultiheadAttention, "in_proj_weight", 0),
        (nn.MultiheadAttention, "q_proj_weight", 0),
    )
    for kind, name, dim in names:
        if isinstance(layer, kind) and getattr(layer, name) is not None:
            return f"{path}.{name}" if path else name, dim
    return "", 0


def _follow_both_modes(found: _Found, inputs: tuple[Tensor, ...]) -> None:
    for training, batch in ((False, inputs), (True, tuple(map(_twice, inputs)))):
        model = copy.deepcopy(found.model).train(training)
        follow(model, batch, found.relations, found.sites, found.sightings)


def _twice(tensor: Tensor) -> Tensor:
    """A batch of one as a batch of two, which batch normalisation needs in training."""
    return torch.cat([tensor, tensor]) if tensor.dim() and len(tensor) == 1 else tensor


def _tried(found: _Found, trial: Trial) -> Discovery:
    """What of the groups found passes the trial."""
    groups = found.groups()
    failure = trial.failure(groups) if groups else None
    if failure is None:
        return found.discovery(groups, {})
    for view, others in _other_readings(found):
        if others and trial.failure(others) is None:
            return view.discovery(others, {})
    return found.discovery(*passing(trial, groups, failure))


def _other_readings(found: _Found) -> Iterator[tuple[_Found, list[ChannelGroup]]]:
    """What else the sizes in the forward pass may mean."""
    yield found, found.groups(inputs_first=True)
    for tie in (found.sightings.tie_to_inputs, found.sightings.tie_alike):
        tied = replace(found, channels=found.channels.copy())
        tie(tied.channels)
        if (tied.channels.roots() != found.channels.roots()).any():
            yield tied, tied.groups()
            yield tied, tied.groups(inputs_first=True)
