"""Reasons for which a gateway does not serve a call or a connection: a bounded set of words."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

__all__ = ["STATUS"]

STATUS: Mapping[str, str] = MappingProxyType(
    {
        "certificate": "UNAUTHENTICATED",
        "expired": "UNAUTHENTICATED",
        "revoked": "PERMISSION_DENIED",
        "method": "UNIMPLEMENTED",
        "message": "INVALID_ARGUMENT",
        "size": "INVALID_ARGUMENT",
        "unknown_plan": "NOT_FOUND",
        "offset": "FAILED_PRECONDITION",
        "digest": "FAILED_PRECONDITION",
        "rate": "RESOURCE_EXHAUSTED",
        "slow": "DEADLINE_EXCEEDED",
        "connections": "UNAVAILABLE",
        "handshake": "UNAUTHENTICATED",
        "error": "INTERNAL",
    }
)
"""Reason -> status code of gRPC, which HTTPS names in a header."""
