"""The clocks as they were before any simulation replaced them: for limits that protect the person who waits."""

from __future__ import annotations

import time

real_monotonic = time.monotonic
real_sleep = time.sleep
