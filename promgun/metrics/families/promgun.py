"""Families of promgun itself: its store and its page."""

from __future__ import annotations

from promgun.metrics.label_values import StoreErrorReason
from promgun.metrics.spec import CounterFamily, GaugeFamily, MetricSpec

SCRAPE_DURATION_SECONDS: GaugeFamily[tuple[()]] = GaugeFamily(
    name="promgun_scrape_duration_seconds",
    group="promgun",
    help="Time it took to read the store and merge its values for this page.",
)
STORE_BYTES: GaugeFamily[tuple[()]] = GaugeFamily(
    name="promgun_store_bytes",
    group="promgun",
    help="Size of the store.",
)
STORE_FILES: GaugeFamily[tuple[()]] = GaugeFamily(
    name="promgun_store_files",
    group="promgun",
    help="Files in the store.",
)
STORE_SLOTS: GaugeFamily[tuple[()]] = GaugeFamily(
    name="promgun_store_slots",
    group="promgun",
    help="Slots in the store: as many as workers, and children of workers that count metrics, ever ran at once.",
)
STORE_ERRORS: CounterFamily[tuple[StoreErrorReason]] = CounterFamily(
    name="promgun_store_errors_total",
    labels=("reason",),
    group="promgun",
    closed={"reason": tuple(StoreErrorReason)},
    help="Failures to store a value or to read one, by reason.",
)
LABEL_SETS_FOLDED: CounterFamily[tuple[str]] = CounterFamily(
    name="promgun_label_sets_folded_total",
    labels=("family",),
    group="promgun",
    help="How often a label set beyond --metrics-max-label-sets was counted under _OVERFLOW in its family.",
)

FAMILIES: tuple[MetricSpec, ...] = (
    SCRAPE_DURATION_SECONDS,
    STORE_BYTES,
    STORE_FILES,
    STORE_SLOTS,
    STORE_ERRORS,
    LABEL_SETS_FOLDED,
)
