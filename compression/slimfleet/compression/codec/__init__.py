"""The update codec: sparsify, quantise, entropy-code; with error feedback around it. No torch."""

from slimfleet.compression.codec.codec import (
    CodecSpec,
    Decoded,
    Encoded,
    decode,
    encode,
    largest_payload,
    stages,
)
from slimfleet.compression.codec.downlink.change import (
    Received,
    decode_change,
    decode_model,
    encode_change,
    encode_model,
)
from slimfleet.compression.codec.downlink.publish import HYSTERESIS, publish
from slimfleet.compression.codec.downlink.snapshot import Snapshot
from slimfleet.compression.codec.feedback import (
    add_residual,
    error_feedback,
    residual_after,
    zero_residual,
)
from slimfleet.compression.codec.quantise.sparsify import sparsify_threshold, sparsify_top_k
from slimfleet.compression.codec.quantise.uniform import quantise_deadzone, quantise_stochastic
from slimfleet.compression.codec.rate import encode_to
from slimfleet.compression.codec.stage import Stage, chain

__all__ = [
    "HYSTERESIS",
    "CodecSpec",
    "Decoded",
    "Encoded",
    "Received",
    "Snapshot",
    "Stage",
    "add_residual",
    "chain",
    "decode",
    "decode_change",
    "decode_model",
    "encode",
    "encode_change",
    "encode_model",
    "encode_to",
    "error_feedback",
    "largest_payload",
    "publish",
    "quantise_deadzone",
    "quantise_stochastic",
    "residual_after",
    "sparsify_threshold",
    "sparsify_top_k",
    "stages",
    "zero_residual",
]
