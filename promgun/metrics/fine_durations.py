"""The fine histogram of durations: one row a slot, for ``top``, the status page and its JSON, never for Prometheus.

The contract's buckets are few, and a quantile from them may be wrong by a factor of two. Here each bound is at most 5 %
above the previous one, from 1 ms to 1,000 s, so quantiles and the largest value are right to 5 %.
"""

from __future__ import annotations

import math

from promgun.store.row_format import CellGroup, RowSchema, log_bounds

FINE_DURATIONS = "promgun_fine_durations"
_SHORTEST, _LONGEST, _RATIO = 0.001, 1000.0, 1.049
#: The largest ratio of a bucket's upper bound to its lower one, with rounded bounds.
WIDEST = 1.05
_STEPS = math.ceil(math.log(_LONGEST / _SHORTEST) / math.log(_RATIO))
#: Seconds, rising, without ``+Inf``.
FINE_BOUNDS = log_bounds(_SHORTEST, _LONGEST, _STEPS)
FINE_SCHEMA = RowSchema((), (CellGroup(FINE_DURATIONS, (), FINE_BOUNDS),))
