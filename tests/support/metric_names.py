"""The names of the endpoint's metrics, as `serving.metrics` documents them.

A unit test holds the list against what is told to Ray.
"""

from __future__ import annotations

import re

from serving import metrics

__all__ = ["METRIC_NAMES"]

METRIC_NAMES = tuple(re.findall(r"^(twofold_\w+)", metrics.__doc__ or "", re.MULTILINE))
"""Without Ray's prefix; of a histogram the name before _bucket, _count and _sum."""
