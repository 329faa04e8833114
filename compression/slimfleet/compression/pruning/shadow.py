"""Shadow: for each element of each tensor of a running model, the channels that it belongs to.

Labels lie beside storages, not tensors, so that every view of a tensor, and every write through a view, needs no
rule: the view of the labels is the view of the data.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef

PURGE_AT = 64
"""Labels of freed storages are dropped when those of so many were added."""


@dataclass(frozen=True, slots=True)
class Labels:
    """What is known of the elements of one tensor: integer tensors of its shape, expanded wherever they repeat."""

    channels: tuple[Tensor, ...] = ()
    """Each gives one label, or 0 for none, to an element; the element is there while all its channels are."""
    places: tuple[Tensor, ...] = ()
    """Each numbers places along which the data differ and which are never removed, such as pixels."""

    def map(self, change: Callable[[Tensor], Tensor]) -> Labels:
        """Labels with every tensor replaced by `change(tensor)`."""
        return Labels(tuple(map(change, self.channels)), tuple(map(change, self.places)))


Geometry = tuple[tuple[int, ...], tuple[int, ...], int]
"""Shape, strides and offset of a tensor in its storage."""

_View = tuple[Geometry, int]
"""A geometry, and how many elements the storage holds: half as many complex numbers as real ones."""


@dataclass(frozen=True, slots=True)
class _Entry:
    storage: StorageWeakRef
    geometry: Geometry
    """That of the tensor whose labels these are."""
    elements: int
    """How many of this tensor's the storage holds."""
    labels: Labels
    views: dict[_View, Labels]
    """The same labels, as other tensors of this storage see them."""


class Shadow:
    """Labels by storage."""

    def __init__(self) -> None:
        self._entries: dict[int, _Entry] = {}
        self._purge_at = PURGE_AT

    def read(self, tensor: Tensor) -> Labels:
        """The labels of a tensor, of its shape."""
        entry = self._entry(tensor)
        if entry is None or not tensor.numel():
            return Labels()
        geometry, elements = view = _view(tensor)
        if view not in entry.views:
            entry.views[view] = _flat(entry, elements).map(lambda flat: canonical(flat.as_strided(*geometry)))
        return entry.views[view]

    def view(self, tensor: Tensor, of: Tensor, look: Callable[[Tensor], Tensor]) -> None:
        """Note that `tensor` is `look(of)`: faster than finding it out from the strides."""
        entry = self._entry(tensor)
        if entry is None or not tensor.numel() or _view(of) not in entry.views:
            return
        try:
            entry.views.setdefault(_view(tensor), entry.views[_view(of)].map(look))
        except RuntimeError:
            # Expanded labels cannot always be viewed as the data can: then the strides tell.
            return

    def write(self, tensor: Tensor, labels: Labels) -> None:
        """Replace the labels of a tensor; those of the rest of its storage stay."""
        if len(self._entries) >= self._purge_at:
            self._entries = {key: e for key, e in self._entries.items() if not _freed(e)}
            self._purge_at = len(self._entries) + PURGE_AT
        labels = labels.map(canonical)
        entry = self._entry(tensor)
        geometry, elements = _view(tensor)
        storage = tensor.untyped_storage()
        if entry is not None and tensor.numel() < elements:
            labels = _merged(_flat(entry, elements), elements, geometry, labels)
            geometry = (elements,), (1,), 0
        self._entries[storage._cdata] = _Entry(
            _watched(storage), geometry, elements, labels, {(geometry, elements): labels}
        )

    def _entry(self, tensor: Tensor) -> _Entry | None:
        entry = self._entries.get(tensor.untyped_storage()._cdata)
        return None if entry is None or _freed(entry) else entry


def _elements(tensor: Tensor) -> int:
    """How many elements the storage of a tensor holds."""
    return tensor.untyped_storage().nbytes() // max(1, tensor.element_size())


def _flat(entry: _Entry, elements: int) -> Labels:
    """The labels of a whole storage, by element, of which it holds so many."""

    def flat(slot: Tensor) -> Tensor:
        whole = slot.contiguous()
        if entry.geometry != ((entry.elements,), (1,), 0):
            whole = torch.zeros(entry.elements, dtype=slot.dtype)
            whole.as_strided(*entry.geometry).copy_(slot)
        if elements > entry.elements:
            return whole.repeat_interleave(elements // entry.elements)
        return whole[:: entry.elements // elements].contiguous()

    return entry.labels.map(flat)


def _merged(flat: Labels, elements: int, geometry: Geometry, labels: Labels) -> Labels:
    """The labels of a whole storage after a write to a part of it."""
    none = torch.zeros((), dtype=torch.int64)

    def merged(old: tuple[Tensor, ...], new: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        slots = []
        for i in range(max(len(old), len(new))):
            slot = old[i].clone() if i < len(old) else torch.zeros(elements, dtype=torch.int64)
            slot.as_strided(*geometry).copy_(new[i] if i < len(new) else none)
            slots.append(slot)
        return tuple(slots)

    return Labels(merged(flat.channels, labels.channels), merged(flat.places, labels.places))


def canonical(slot: Tensor) -> Tensor:
    """`slot` with every dimension along which it repeats expanded, in a storage hardly larger than it needs."""
    small = compact(slot, checked=False)
    if small.untyped_storage().nbytes() > 2 * small.numel() * small.element_size():
        small = small.clone(memory_format=torch.contiguous_format)
    return small.expand(slot.shape)


def compact(slot: Tensor, checked: bool = True) -> Tensor:
    """`slot` with every dimension along which it repeats cut to size 1; `checked` says that it is canonical."""
    for dim, size in enumerate(slot.shape):
        if size > 1 and (slot.stride(dim) == 0 or (not checked and _repeats(slot, dim))):
            slot = slot.narrow(dim, 0, 1)
    return slot


def _repeats(slot: Tensor, dim: int) -> bool:
    first = slot.narrow(dim, 0, 1)
    if not torch.equal(first, slot.narrow(dim, slot.shape[dim] - 1, 1)):
        return False
    return bool((slot == first).all())


def _view(tensor: Tensor) -> _View:
    geometry = tuple(tensor.shape), tensor.stride(), int(tensor.storage_offset())
    return geometry, _elements(tensor)


def _watched(storage: torch.UntypedStorage) -> StorageWeakRef:
    return StorageWeakRef(storage)  # type: ignore[no-untyped-call]


def _freed(entry: _Entry) -> bool:
    return bool(entry.storage.expired())  # type: ignore[no-untyped-call]
