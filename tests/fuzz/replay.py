"""Feed seeded inputs to the decoder and print, as JSON, how often it gave which reason.

python tests/fuzz/replay.py COUNT
"""

import json
import sys
from collections import Counter

from cases import check, inputs

from slimfleet.compression.codec.native import library

if __name__ == "__main__":
    reasons = Counter(check(data) for data in inputs(int(sys.argv[1]), seed=1))
    print(
        json.dumps({"native": library.load() is not None, "reasons": {str(k): n for k, n in reasons.items()}})
    )
