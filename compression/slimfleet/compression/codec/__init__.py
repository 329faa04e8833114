"""Codec: sparsify, quantise and entropy-code updates and models; residuals for error feedback. No torch."""

from slimfleet.compression.codec.codec import Decoded, Encoded, decode, encode, largest_payload
from slimfleet.compression.codec.downlink.change import (
    Received,
    decode_change,
    decode_model,
    encode_change,
    encode_model,
)
from slimfleet.compression.codec.downlink.publish import HYSTERESIS, publish
from slimfleet.compression.codec.downlink.snapshot import Snapshot
from slimfleet.compression.codec.feedback import add_residual, residual_after
from slimfleet.compression.codec.plain_updates import encode_plain, is_plain
from slimfleet.compression.codec.quantise.plain import carried
from slimfleet.compression.codec.quantise.sparsify import sparsify_top_k
from slimfleet.compression.codec.rate import encode_to
from slimfleet.compression.codec.spec import Aim, CodecSpec, Coding

__all__ = [
    "HYSTERESIS",
    "Aim",
    "CodecSpec",
    "Coding",
    "Decoded",
    "Encoded",
    "Received",
    "Snapshot",
    "add_residual",
    "carried",
    "decode",
    "decode_change",
    "decode_model",
    "encode",
    "encode_change",
    "encode_model",
    "encode_plain",
    "encode_to",
    "is_plain",
    "largest_payload",
    "publish",
    "residual_after",
    "sparsify_top_k",
]
