"""Write the conformance vectors: python tests/conformance/make.py

They are compared with what this gives in test_conformance.py. What is there stays as it is within a format version; new
cases may be added.
"""

from __future__ import annotations

import sys
from pathlib import Path

HERE = Path(__file__).parent
if __name__ == "__main__":
    sys.path.insert(0, str(HERE))

from making.decoding import decoding  # noqa: E402
from making.encoding import encoding  # noqa: E402
from making.messages import messages  # noqa: E402
from making.refusing import refusing  # noqa: E402
from making.training import training  # noqa: E402
from making.writing import Files  # noqa: E402

VECTORS = HERE / "vectors"


def vectors() -> Files:
    """Path below `vectors/` -> content."""
    return {**decoding(), **refusing(), **encoding(), **training(), **messages()}


if __name__ == "__main__":
    for path, content in vectors().items():
        (VECTORS / path).parent.mkdir(parents=True, exist_ok=True)
        (VECTORS / path).write_bytes(content)
