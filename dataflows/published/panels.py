"""What Grafana dashboards are made of: queries, panels, rows; written as the JSON that Grafana provisions.

The JSON model is Grafana's own (grafana.com/docs, "JSON model", schema version 39, read by Grafana 10.4 and later).
"""

import json
from collections.abc import Iterator, Mapping
from typing import Any, Literal, NamedTuple

SCHEMA_VERSION = 39
COLUMNS = 24
"""Grafana lays panels on a grid of so many columns."""

HEIGHT = {"timeseries": 8, "stat": 4, "table": 8, "state-timeline": 8}

COUNT = "short"
"""The unit of whole things: without decimals, though what grew within a time is extrapolated and so a fraction."""

QUIET_MAX = {COUNT: 1.0, "recps": 0.1, "eps": 0.1, "cps": 0.1, "percentunit": 0.01, "s": 0.001, "bytes": 1024.0}
"""How far an axis goes at least, by unit: left to itself, one without anything to show goes to a hundred of it."""

RARE = "10m"
"""Over so long a time quantiles are taken of what does not happen every minute."""

DATASOURCE = {"type": "prometheus", "uid": "${datasource}"}


class Panel(NamedTuple):
    """One panel.

    Attributes:
        title: what it shows, in few words.
        description: what it means, and when to worry.
        unit: Grafana's name of the unit (`s`, `bytes`, `percentunit`, `recps`, ...); `none` is a plain number.
        queries: PromQL by legend; `{{label}}` stands for a label's value. Of a table: by the name of its column.
        kind: how it is drawn.
        limit: from this value on it is drawn red; None: there is no such value.
        span: of the axis, for what cannot lie outside; None: from 0 to what there is.
        words: what stands for the values 0, 1, 2, ... of a state.
    """

    title: str
    description: str
    unit: str
    queries: Mapping[str, str]
    kind: Literal["timeseries", "stat", "table", "state-timeline"] = "timeseries"
    limit: float | None = None
    span: tuple[float, float] | None = None
    words: tuple[str, ...] = ()


class Row(NamedTuple):
    """A heading, and the panels below it, at most `across` beside each other; each line is filled from edge to edge."""

    title: str
    panels: tuple[Panel, ...]
    across: int = 4


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


def quantile(q: float, metric: str, by: str = "", within: str = "$__rate_interval") -> str:
    """Return a quantile of a histogram's last minutes."""
    labels = f"le, {by}" if by else "le"
    return f"histogram_quantile({q}, sum by ({labels}) (rate({of(f'{metric}_bucket')}[{within}])))"


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
        "time": {"from": "now-1h", "to": "now"},
        "templating": {"list": _variables()},
        "links": [_MENU],
        "panels": list(_placed(dashboard.rows)),
    }


_MENU = {
    "type": "dashboards",
    "tags": ["stayline"],
    "title": "Stayline",
    "tooltip": "The other dashboards, of the same time and processes",
    "icon": "dashboard",
    "asDropdown": True,
    "targetBlank": False,
    "keepTime": True,
    "includeVars": True,
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
        grid = _grid(0, y, COLUMNS, 1)
        yield {"id": number, "type": "row", "title": row.title, "gridPos": grid, "collapsed": False, "panels": []}
        y += 1
        for line in _lines(row):
            width = COLUMNS // len(line)
            for place, panel in enumerate(line):
                number += 1
                yield _panel(panel) | {"id": number, "gridPos": _grid(place * width, y, width, HEIGHT[panel.kind])}
            y += max(HEIGHT[panel.kind] for panel in line)


def _lines(row: Row) -> Iterator[tuple[Panel, ...]]:
    """Cut a row's panels into as few lines as there may be, of nearly equal lengths."""
    lines = -(-len(row.panels) // row.across)
    for line in range(lines):
        yield row.panels[-(-line * len(row.panels) // lines) : -(-(line + 1) * len(row.panels) // lines)]


def _grid(x: int, y: int, width: int, height: int) -> dict[str, int]:
    return {"x": x, "y": y, "w": width, "h": height}


def _panel(panel: Panel) -> dict[str, Any]:
    return {
        "type": panel.kind,
        "title": panel.title,
        "description": panel.description,
        "datasource": DATASOURCE,
        "fieldConfig": {"defaults": _defaults(panel), "overrides": []},
        "options": _OPTIONS.get(panel.kind, {}),
        "targets": [
            {"refId": _ref(k), "expr": expression, "legendFormat": legend, "datasource": DATASOURCE}
            | ({"format": "table", "instant": True} if panel.kind == "table" else {})
            for k, (legend, expression) in enumerate(panel.queries.items())
        ],
    } | ({"transformations": _columns(panel)} if panel.kind == "table" else {})


_OPTIONS = {
    "timeseries": {
        "legend": {"displayMode": "list", "placement": "bottom", "showLegend": True, "calcs": []},
        "tooltip": {"mode": "multi", "sort": "desc"},
    },
    "state-timeline": {"showValue": "never", "mergeValues": True},
}


def _defaults(panel: Panel) -> dict[str, Any]:
    """Return how each value of a panel is shown."""
    steps: list[dict[str, Any]] = [{"color": "green", "value": None}]
    if panel.limit is not None:
        steps.append({"color": "red", "value": panel.limit})
    shown: dict[str, Any] = {"unit": panel.unit, "thresholds": {"mode": "absolute", "steps": steps}}
    if panel.unit == COUNT:
        shown["decimals"] = 0
    if panel.kind == "timeseries":
        shown |= {"min": 0, "custom": {"fillOpacity": 8, "thresholdsStyle": {"mode": _marked(panel)}}}
        if panel.unit in QUIET_MAX:
            shown["custom"]["axisSoftMax"] = QUIET_MAX[panel.unit]
    if panel.span is not None:
        shown |= {"min": panel.span[0], "max": panel.span[1]}
    if panel.words:
        states = {str(value): {"text": word, "index": value} for value, word in enumerate(panel.words)}
        shown["mappings"] = [{"type": "value", "options": states}]
    if panel.kind == "table":
        shown["mappings"] = [{"type": "special", "options": {"match": "nan", "result": {"text": "-"}}}]
    return shown


def _marked(panel: Panel) -> str:
    return "off" if panel.limit is None else "line"


def _columns(panel: Panel) -> list[dict[str, Any]]:
    """Return what makes one table of the answers to a panel's queries, by the label that they share."""
    names = {f"Value #{_ref(k)}": legend for k, legend in enumerate(panel.queries)}
    return [
        {"id": "merge", "options": {}},
        {"id": "organize", "options": {"excludeByName": {"Time": True}, "renameByName": names}},
    ]


def _ref(number: int) -> str:
    return chr(ord("A") + number)
