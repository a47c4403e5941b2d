"""What Grafana dashboards are made of: queries, panels, rows; written as the JSON that Grafana provisions.

The JSON model is Grafana's own (grafana.com/docs, "JSON model", schema version 39, read by Grafana 10.4 and later).
"""

import json
from collections.abc import Iterator, Mapping
from typing import Any, Literal, NamedTuple

SCHEMA_VERSION = 39
COLUMNS = 24
"""Grafana lays panels on a grid of so many columns."""

HEIGHT = {"timeseries": 8, "stat": 4, "bargauge": 8, "state-timeline": 6}

DATASOURCE = {"type": "prometheus", "uid": "${datasource}"}


class Panel(NamedTuple):
    """One panel.

    Attributes:
        title: what it shows, in few words.
        description: what it means, and when to worry.
        unit: Grafana's name of the unit (`s`, `bytes`, `percentunit`, `short`, ...).
        queries: PromQL by legend; `{{label}}` stands for a label's value.
        kind: how it is drawn.
        width: in columns of 24.
        limit: from this value on it is drawn red; None: there is no such value.
    """

    title: str
    description: str
    unit: str
    queries: Mapping[str, str]
    kind: Literal["timeseries", "stat", "bargauge", "state-timeline"] = "timeseries"
    width: int = 8
    limit: float | None = None


class Row(NamedTuple):
    """A heading, and the panels below it."""

    title: str
    panels: tuple[Panel, ...]


class Dashboard(NamedTuple):
    """One dashboard; `uid` is its file's name and its address."""

    uid: str
    title: str
    description: str
    rows: tuple[Row, ...]


def of(metric: str, **labels: str) -> str:
    """Return the selector of a metric of the chosen instances."""
    chosen = ['instance=~"$instance"', *(f'{name}="{value}"' for name, value in labels.items())]
    return f"{metric}{{{','.join(chosen)}}}"


def total(metric: str, by: str = "", **labels: str) -> str:
    """Return the sum of a metric over all instances, kept apart by some labels."""
    return f"sum{_by(by)}({of(metric, **labels)})"


def per_s(metric: str, by: str = "", **labels: str) -> str:
    """Return the rate of a counter, a second."""
    return f"sum{_by(by)}(rate({of(metric, **labels)}[$__rate_interval]))"


def per_day(metric: str, by: str = "", **labels: str) -> str:
    """Return by how much a counter grew within a day."""
    return f"sum{_by(by)}(increase({of(metric, **labels)}[1d]))"


def quantile(q: float, metric: str, by: str = "") -> str:
    """Return a quantile of a histogram's last minutes."""
    return f"histogram_quantile({q}, {per_s(f'{metric}_bucket', f'le, {by}' if by else 'le')})"


def _by(labels: str) -> str:
    return f" by ({labels}) " if labels else ""


def written(dashboard: Dashboard) -> str:
    """Return a dashboard as Grafana reads it."""
    return json.dumps(_model(dashboard), indent=1) + "\n"


def _model(dashboard: Dashboard) -> dict[str, Any]:
    return {
        "uid": dashboard.uid,
        "title": dashboard.title,
        "description": dashboard.description,
        "tags": ["stayline"],
        "schemaVersion": SCHEMA_VERSION,
        "version": 1,
        "editable": False,
        "timezone": "utc",
        "refresh": "30s",
        "time": {"from": "now-6h", "to": "now"},
        "templating": {"list": _variables()},
        "links": [{"type": "dashboards", "tags": ["stayline"], "title": "Stayline", "asDropdown": True}],
        "panels": list(_placed(dashboard.rows)),
    }


def _variables() -> list[dict[str, Any]]:
    return [
        {"name": "datasource", "label": "Prometheus", "type": "datasource", "query": "prometheus"},
        {
            "name": "instance",
            "label": "Process",
            "type": "query",
            "datasource": DATASOURCE,
            "query": "label_values(stayline_build_info, instance)",
            "refresh": 2,
            "multi": True,
            "includeAll": True,
            "allValue": ".*",
        },
    ]


def _placed(rows: tuple[Row, ...]) -> Iterator[dict[str, Any]]:
    """Lay panels from left to right, rows from top to bottom."""
    number, y = 0, 0
    for row in rows:
        number += 1
        yield {"id": number, "type": "row", "title": row.title, "gridPos": _grid(0, y, COLUMNS, 1), "panels": []}
        x, y, tallest = 0, y + 1, 0
        for panel in row.panels:
            if x + panel.width > COLUMNS:
                x, y, tallest = 0, y + tallest, 0
            number += 1
            height = HEIGHT[panel.kind]
            yield _panel(panel) | {"id": number, "gridPos": _grid(x, y, panel.width, height)}
            x, tallest = x + panel.width, max(tallest, height)
        y += tallest


def _grid(x: int, y: int, width: int, height: int) -> dict[str, int]:
    return {"x": x, "y": y, "w": width, "h": height}


def _panel(panel: Panel) -> dict[str, Any]:
    steps: list[dict[str, Any]] = [{"color": "green", "value": None}]
    if panel.limit is not None:
        steps.append({"color": "red", "value": panel.limit})
    defaults: dict[str, Any] = {"unit": panel.unit, "thresholds": {"mode": "absolute", "steps": steps}}
    if panel.kind == "timeseries":
        marked = "off" if panel.limit is None else "line"
        defaults |= {"min": 0, "custom": {"fillOpacity": 8, "thresholdsStyle": {"mode": marked}}}
    return {
        "type": panel.kind,
        "title": panel.title,
        "description": panel.description,
        "datasource": DATASOURCE,
        "fieldConfig": {"defaults": defaults, "overrides": []},
        "options": {"legend": {"displayMode": "list", "placement": "bottom"}} if panel.kind == "timeseries" else {},
        "targets": [
            {"refId": chr(ord("A") + k), "expr": expression, "legendFormat": legend, "datasource": DATASOURCE}
            for k, (legend, expression) in enumerate(panel.queries.items())
        ],
    }
