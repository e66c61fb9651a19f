"""How many examples a property is tried with: few in `make test`, many in `test-properties`."""

from __future__ import annotations

import os

EXAMPLES = int(os.environ.get("PROPERTY_EXAMPLES", "200"))
