"""``promgun export grafana``: a dashboard for Grafana 11 and newer."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from string import ascii_uppercase
from typing import Any

from promgun.errors import UsageError
from promgun.export import panels_requests, panels_saturation, panels_server
from promgun.export.options import option
from promgun.export.panel import Panel, Row
from promgun.export.text import fill, window

Json = dict[str, Any]
#: The dashboard schema of Grafana 11; newer versions convert it when they load it.
SCHEMA = 39
COLUMNS = 24
SOURCE: Json = {"type": "prometheus", "uid": "${datasource}"}
FILTERS = {
    "servers": 'job=~"$job", instance=~"$instance"',
    "routes": 'job=~"$job", instance=~"$instance", route=~"$route"',
    "rate": "$__rate_interval",
}
ROWS: tuple[Row, ...] = (
    panels_requests.OVERVIEW,
    panels_requests.TRAFFIC,
    panels_requests.ERRORS,
    panels_requests.LATENCY,
    panels_saturation.SATURATION,
    panels_saturation.QUEUES,
    panels_server.WORKERS,
    panels_server.EXITS,
    panels_server.DEPLOYS,
    panels_server.ITSELF,
)
#: The dashboard's variables: name, title, and the query for the values to choose from.
VARIABLES = (
    ("job", "Job", "label_values(gunicorn_up, job)"),
    ("instance", "Instance", 'label_values(gunicorn_up{job=~"$job"}, instance)'),
    ("route", "Route", 'label_values(gunicorn_requests_total{job=~"$job", instance=~"$instance"}, route)'),
)
RELOADS = fill("max by (instance) (gunicorn_last_reload_timestamp_seconds{<servers>}) * 1000", FILTERS)
_UID = re.compile(r"[A-Za-z0-9_-]{1,40}")


@dataclass(frozen=True, slots=True, kw_only=True)
class GrafanaOptions:
    """What the dashboard is made with: ``job`` is the one shown at first (empty: all), ``uid`` its part of the URL."""

    title: str = option("Gunicorn (promgun)", "The title.")
    uid: str = option("promgun", "The unique name in its URL; a dashboard of the same uid is replaced.")
    job: str = option("", "Show this job at first, not all of them.", "NAME")
    tags: tuple[str, ...] = option(("gunicorn", "promgun"), "A tag to find it by.", "TAG", "--tag")
    refresh: str = option("30s", "How often the dashboard refreshes itself.", "DURATION")
    span: str = option("1h", "How far back it shows.", "DURATION")


def grafana(options: GrafanaOptions) -> str:
    """Return the dashboard as JSON, for Grafana's import or its provisioning; raises ``UsageError``."""
    if not _UID.fullmatch(options.uid):
        raise UsageError(f"{options.uid!r} is not the uid of a dashboard", "Use up to 40 letters, digits, '-' and '_'")
    dashboard = {
        "title": options.title,
        "uid": options.uid,
        "description": "Requests, workers, queues and exits of Gunicorn servers. Made by: promgun export grafana",
        "tags": list(options.tags),
        "schemaVersion": SCHEMA,
        "version": 1,
        "editable": True,
        "graphTooltip": 1,
        "timezone": "browser",
        "time": {"from": f"now-{window(options.span)}", "to": "now"},
        "refresh": window(options.refresh),
        "templating": {"list": list(_variables(options.job))},
        "annotations": {"list": [_annotation()]},
        "panels": list(_panels()),
        "links": [],
    }
    return json.dumps(dashboard, indent=2, ensure_ascii=False) + "\n"


def _variables(job: str) -> Iterator[Json]:
    yield {"name": "datasource", "label": "Data source", "type": "datasource", "query": "prometheus", "refresh": 1}
    for name, label, query in VARIABLES:
        chosen = job if name == "job" and job else ""
        yield {
            "name": name,
            "label": label,
            "type": "query",
            "datasource": SOURCE,
            "definition": query,
            "query": {"query": query, "refId": name},
            "current": {"text": [chosen or "All"], "value": [chosen or "$__all"]},
            "includeAll": True,
            "allValue": ".*",
            "multi": True,
            # With the time range: instances come and go.
            "refresh": 2,
            "sort": 1,
        }


def _annotation() -> Json:
    return {
        "name": "Reloads",
        "datasource": SOURCE,
        "enable": True,
        "iconColor": "blue",
        "expr": RELOADS,
        "useValueForTime": True,
        "titleFormat": "Reload",
        "textFormat": "{{instance}}",
    }


def _panels() -> Iterator[Json]:
    number = top = 0
    for row in ROWS:
        number += 1
        yield {
            "id": number,
            "type": "row",
            "title": row.title,
            "collapsed": False,
            "gridPos": {"h": 1, "w": COLUMNS, "x": 0, "y": top},
            "panels": [],
        }
        top, left, height = top + 1, 0, 0
        for panel in row.panels:
            if left + panel.width > COLUMNS:
                top, left, height = top + height, 0, 0
            number += 1
            place = {"h": panel.height, "w": panel.width, "x": left, "y": top}
            yield _panel(panel) | {"id": number, "gridPos": place}
            left, height = left + panel.width, max(height, panel.height)
        top += height


def _panel(panel: Panel) -> Json:
    return {
        "type": panel.kind,
        "title": panel.title,
        "description": panel.text,
        "datasource": SOURCE,
        "targets": [_target(panel, number) for number in range(len(panel.queries))],
    } | SHAPES[panel.kind](panel)


def _target(panel: Panel, number: int) -> Json:
    query = panel.queries[number]
    forms: dict[str, Json] = {
        "table": {"format": "table", "instant": True, "range": False},
        "heatmap": {"format": "heatmap", "range": True},
    }
    return {
        "refId": ascii_uppercase[number],
        "datasource": SOURCE,
        "expr": fill(query.expr, FILTERS),
        "legendFormat": query.legend,
        "editorMode": "code",
    } | forms.get(panel.kind, {"range": True})


def _defaults(panel: Panel) -> Json:
    steps = panel.steps or ((None, "green"),)
    limits = {} if panel.top is None else {"max": panel.top}
    return limits | {
        "unit": panel.unit,
        "min": 0,
        "thresholds": {"mode": "absolute", "steps": [{"value": low, "color": color} for low, color in steps]},
    }


def _timeseries(panel: Panel) -> Json:
    custom = {
        "drawStyle": "bars" if panel.bars else "line",
        "lineWidth": 1,
        "fillOpacity": 70 if panel.bars else 25 if panel.stacked else 8,
        "showPoints": "never",
        "stacking": {"mode": "normal" if panel.stacked else "none", "group": "A"},
        "thresholdsStyle": {"mode": "dashed" if panel.steps else "off"},
    }
    own_units = [
        {
            "matcher": {"id": "byFrameRefID", "options": ascii_uppercase[number]},
            "properties": [{"id": "unit", "value": query.unit}],
        }
        for number, query in enumerate(panel.queries)
        if query.unit
    ]
    return {
        "fieldConfig": {"defaults": _defaults(panel) | {"custom": custom}, "overrides": own_units},
        "options": {
            "legend": {"displayMode": "table", "placement": "bottom", "showLegend": True, "calcs": ["mean", "max"]},
            "tooltip": {"mode": "multi", "sort": "desc"},
        },
    }


def _stat(panel: Panel) -> Json:
    return {
        "fieldConfig": {"defaults": _defaults(panel) | {"noValue": "-"}, "overrides": []},
        "options": {
            "reduceOptions": {"values": False, "calcs": ["lastNotNull"], "fields": ""},
            "orientation": "auto",
            "textMode": "value",
            "colorMode": "value" if panel.steps else "none",
            "graphMode": "area" if panel.trend else "none",
            "justifyMode": "center",
        },
    }


def _heatmap(panel: Panel) -> Json:
    return {
        "fieldConfig": {"defaults": {}, "overrides": []},
        "options": {
            "calculate": False,
            "cellGap": 1,
            "color": {
                "mode": "scheme",
                "scheme": "Oranges",
                "steps": 64,
                "reverse": False,
                "exponent": 0.5,
                "fill": "dark-orange",
            },
            "filterValues": {"le": 1e-9},
            "rowsFrame": {"layout": "auto", "value": "requests"},
            "yAxis": {"unit": panel.unit, "axisPlacement": "left", "reverse": False},
            "tooltip": {"mode": "single", "yHistogram": True, "showColorScale": True},
            "legend": {"show": True},
        },
    }


def _table(panel: Panel) -> Json:
    names = {f"Value #{ascii_uppercase[number]}": query.legend for number, query in enumerate(panel.queries)}
    titles = {
        label: label.replace("_", " ").capitalize() for label in ("method", "route", "instance", "worker_id", "state")
    }
    hidden = {name: True for name, legend in names.items() if legend in panel.hidden} | {"Time": True}
    units = [
        {"matcher": {"id": "byName", "options": query.legend}, "properties": [{"id": "unit", "value": query.unit}]}
        for query in panel.queries
        if query.unit
    ]
    return {
        "fieldConfig": {"defaults": {"custom": {"align": "auto", "filterable": True}}, "overrides": units},
        "options": {"showHeader": True, "cellHeight": "sm"},
        "transformations": [
            {"id": "merge", "options": {}},
            {"id": "organize", "options": {"excludeByName": hidden, "renameByName": names | titles, "indexByName": {}}},
        ],
    }


SHAPES = {"timeseries": _timeseries, "stat": _stat, "heatmap": _heatmap, "table": _table}
