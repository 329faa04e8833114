"""Sealed files: tensors and text fields as safetensors, under one digest over all of it.

Any safetensors reader gets at the tensors. The metadata have one entry, `sealed`: JSON of the fields and of the XXH3-64
digest. (One entry, because the order of several is not fixed, and equal content should give equal bytes.)
"""

from __future__ import annotations

import json
from collections.abc import Mapping

import numpy as np
import xxhash
from safetensors import SafetensorError
from safetensors.numpy import load, save

from slimfleet.compression.errors import PayloadError
from slimfleet.compression.types import Tensors

SEAL = "sealed"


def seal_tensors(tensors: Tensors, fields: Mapping[str, str]) -> bytes:
    """The content of a file that holds `tensors`, of any layout, and `fields`."""
    # safetensors copies memory as it lies: a transposed array would come back with its elements in the wrong places.
    plain = {
        name: np.asarray(array, array.dtype.newbyteorder("="), order="C") for name, array in tensors.items()
    }
    return save(plain, {SEAL: _seal(plain, fields)})


def open_sealed(data: bytes) -> tuple[Tensors, dict[str, str]]:
    """Tensors and fields of a sealed file; the tensors come in no particular order.

    Raises PayloadError("checksum") where the data are not a sealed file, or anything in them has changed.
    """
    try:
        tensors = load(data)
        header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
        metadata = header["__metadata__"]
        fields: dict[str, str] = json.loads(metadata[SEAL])["fields"]
        sound = metadata == {SEAL: _seal(tensors, fields)}
    except (SafetensorError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise PayloadError("checksum", f"this is no sealed file, or it is damaged ({error})") from error
    if not sound:
        raise PayloadError("checksum", "the checksum does not fit, the file is damaged")
    return tensors, fields


def _seal(tensors: Tensors, fields: Mapping[str, str]) -> str:
    names = sorted(tensors)
    layout = [[name, tensors[name].dtype.name, tensors[name].shape] for name in names]
    digest = xxhash.xxh3_64(json.dumps([dict(fields), layout], sort_keys=True).encode())
    for name in names:
        digest.update(tensors[name].data)
    return json.dumps({"fields": dict(fields), "xxh3_64": digest.hexdigest()}, sort_keys=True)
