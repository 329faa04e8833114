"""PKI: who belongs to a federation. One authority, a certificate of the server, one of each device, and who is out."""

from slimfleet.coordinator.pki.folder import PkiFolder
from slimfleet.coordinator.pki.identity import Identity, Unknown, identity_of
from slimfleet.coordinator.pki.revocation import Revocations

__all__ = ["Identity", "PkiFolder", "Revocations", "Unknown", "identity_of"]
