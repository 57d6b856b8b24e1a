"""Finds the collectors in prometheus_client's default registry that cannot be on the page, with reason and remedy."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from operator import attrgetter

#: prometheus_client's own collectors describe one process; promgun has families for every worker instead.
_STOCK = "prometheus_client."


def unshown_in_registry() -> Iterator[tuple[str, str]]:
    """Yield name and reason of each collector that promgun does not show; none if prometheus_client is not imported."""
    registry = getattr(sys.modules.get("prometheus_client.registry"), "REGISTRY", None)
    metrics = sys.modules.get("prometheus_client.metrics")
    if registry is None or metrics is None:
        return
    # A copy: threads of the application may register meanwhile.
    for collector in list(getattr(registry, "_collector_to_names", ())):
        kind = type(collector)
        name = f"{kind.__module__}.{kind.__qualname__}"
        if isinstance(collector, metrics.MetricWrapperBase):
            if type(getattr(collector, "_value", None)).__name__ == "MutexValue":
                made = str(attrgetter("_name")(collector))
                yield made, f"The metric {made!r} is not on the page: it was made before promgun could store its values"
        elif not kind.__module__.startswith(_STOCK):
            reason = "custom collectors are run if --metrics-collector MODULE:FACTORY names them"
            yield name, f"The application's collector {name} is not on the page: {reason}"
