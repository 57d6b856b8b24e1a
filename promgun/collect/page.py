"""The page: one reading as metric families, ours in the catalogue's order, then the application's by name."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from prometheus_client.core import Metric

from promgun.collect.app_families import AppFamilies
from promgun.collect.live_columns import Column
from promgun.collect.live_families import computed_columns, zero_sets
from promgun.collect.live_family import LiveFamilies
from promgun.collect.page_names import count_refused
from promgun.collect.reading import InstanceReader, Reading
from promgun.collect.row_family import RowFamily
from promgun.collect.slot_owners import living_owners
from promgun.collect.unique_memory import UniqueMemory
from promgun.metrics.catalog import CATALOG
from promgun.metrics.families.promgun import SCRAPE_DURATION_SECONDS
from promgun.metrics.spec import MetricSpec
from promgun.store.run_places import run_in


class Collector:
    """Collects the page of one store, or of the run in the directory of ``--metrics-dir``, and reads it for a status.

    Keep one for all pages: it caches parsed files, and keeps counters of slots from falling.

    ``log`` gets a line for each damaged file and each family that cannot be shown, once. ``unique_memory_seconds`` is
    how often each worker's unique memory is read, after the first page; 0 leaves it out. Used from one thread at a
    time; ``master_alive`` and ``worker_booted`` may be called from another.
    """

    def __init__(
        self, store: Path, log: Callable[[str], None] | None = None, unique_memory_seconds: float = 0.0
    ) -> None:
        self._named = store
        self._log = log
        self._unique_memory = UniqueMemory(unique_memory_seconds)
        self._reader = InstanceReader(store, self._unique_memory)
        self._app = AppFamilies(log)
        self._live = LiveFamilies()

    def master_alive(self) -> bool:
        """Whether a master of the store lives."""
        return any(owner.is_master for owner in living_owners(self._run()))

    def worker_booted(self) -> bool:
        """Whether at least one living worker has booted."""
        return any(owner.is_worker and owner.has_booted for owner in living_owners(self._run()))

    def read(self) -> Reading:
        """Return a reading for a status: without unique memory and descriptors."""
        return self._instance().read(whole=False)

    def _run(self) -> Path:
        return run_in(self._named)

    def _instance(self) -> InstanceReader:
        # A sidecar may start before the run is there.
        run = self._run()
        if run != self._reader.store:
            self._reader = InstanceReader(run, self._unique_memory)
        return self._reader

    def collect(self) -> list[Metric]:
        """Return every family that has a sample."""
        begin = time.perf_counter()
        reading = self._instance().read(whole=True)
        for complaint in reading.values.complaints:
            if self._log is not None:
                self._log(f"A file of the metrics store is damaged, and read up to the damage: {complaint}")
        duration = [0.0]
        columns = {**computed_columns(reading), SCRAPE_DURATION_SECONDS: (((),), duration)}
        families = list(self._own_families(columns, reading))
        families += self._app.families(reading.values.series)
        count_refused(families, self._app.refused)
        self._unique_memory.follow()
        duration[0] = time.perf_counter() - begin
        return families

    def _own_families(self, columns: Mapping[MetricSpec, Column], reading: Reading) -> Iterator[Metric]:
        for spec in CATALOG:
            sets, values = columns.get(spec, ((), ()))
            if sets:
                yield self._live.family(spec, sets, values, reading.shown.labels)
            else:
                family = _stored_family(spec, reading)
                if family.rows:
                    yield family


def _stored_family(spec: MetricSpec, reading: Reading) -> RowFamily:
    """Return a family of the catalogue that is stored, with 0 for label sets not used yet."""
    names = tuple(sorted(spec.labels))
    rows = reading.values.own.rows_of(spec.name, names, histogram=spec.kind == "histogram")
    if spec.kind == "counter":
        order = [spec.labels.index(name) for name in names]
        for values in zero_sets(spec):
            rows.setdefault(tuple([values[index] for index in order]), ((), (0.0,)))
    return RowFamily(spec, names, rows, reading.shown.labels)
