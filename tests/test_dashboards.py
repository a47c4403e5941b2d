"""Dashboards: current, complete, and of metrics that exist; a real Prometheus answers every query of theirs."""

import contextlib
import http.server
import json
import re
import socket
import subprocess
import threading
from pathlib import Path

import httpx2
import pytest
from metrics_kit import families, scraped, scraped_of_inputs
from needs_kit import needs
from run_kit import until

from dataflows.published import FILES, publish
from dataflows.published.panels import COLUMNS

DOCS = Path(__file__).parent.parent / "docs"
MODELS = {path.stem: json.loads(path.read_text()) for path in (DOCS / "deploy/grafana/dashboards").glob("*.json")}
PANELS = [(uid, panel) for uid, model in MODELS.items() for panel in model["panels"] if panel["type"] != "row"]
UNITS = {"s", "bytes", "percentunit", "recps", "eps", "cps", "short", "none"}
EXPRESSIONS = [target["expr"] for _, panel in PANELS for target in panel["targets"]]


def test_what_is_published_is_current(tmp_path):
    for name in FILES:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes((DOCS / name).read_bytes())
    assert publish(tmp_path) == [], "python -m dataflows.published"


def test_what_is_not_current_is_written_anew(tmp_path):
    assert sorted(publish(tmp_path)) == sorted(FILES)
    some = next(iter(FILES))
    (tmp_path / some).write_text("old")
    assert publish(tmp_path) == [some]


def test_there_are_four_dashboards_and_no_stray_file():
    assert set(MODELS) == {"stayline-operations", "stayline-quality", "stayline-detection", "stayline-delivery"}
    assert all(model["uid"] == uid for uid, model in MODELS.items())


def test_every_metric_of_every_panel_exists_in_a_live_scrape():
    shown = {*families(scraped()), *families(scraped_of_inputs())}
    named = {name for text in EXPRESSIONS for name in re.findall(r"\b(?:stayline|process)_\w+", text)}
    assert len(named) > 40
    assert named <= shown


@pytest.mark.parametrize("panel", [panel for _, panel in PANELS], ids=lambda panel: panel["title"])
def test_every_panel_has_a_unit_a_description_and_queries(panel):
    assert panel["fieldConfig"]["defaults"]["unit"] in UNITS
    assert panel["description"].endswith(".")
    assert panel["description"] != f"{panel['title']}."
    assert panel["title"]
    assert panel["targets"]


def test_no_two_panels_lie_over_each_other():
    for model in MODELS.values():
        taken = set()
        for panel in model["panels"]:
            grid = panel["gridPos"]
            cells = {
                (x, y) for x in range(grid["x"], grid["x"] + grid["w"]) for y in range(grid["y"], grid["y"] + grid["h"])
            }
            assert not taken & cells
            assert grid["x"] + grid["w"] <= COLUMNS
            taken |= cells
        assert len({panel["id"] for panel in model["panels"]}) == len(model["panels"])


@pytest.mark.parametrize("panel", [panel for _, panel in PANELS], ids=lambda panel: panel["title"])
def test_what_is_counted_a_second_has_a_unit_that_says_so_and_nothing_else_has(panel):
    a_second = panel["fieldConfig"]["defaults"]["unit"] in {"recps", "eps", "cps"}
    for target in panel["targets"]:
        bare = re.fullmatch(r"sum(?: by \(.*?\) )?\(rate\([^)]*\)\)", target["expr"])
        assert bool(bare) == a_second, target["expr"]


def test_every_line_of_panels_is_filled_from_edge_to_edge():
    for model in MODELS.values():
        lines = {}
        for panel in model["panels"]:
            lines.setdefault(panel["gridPos"]["y"], []).append(panel["gridPos"])
        assert all(sum(grid["w"] for grid in line) == COLUMNS for line in lines.values())
        assert all(len({grid["h"] for grid in line}) == 1 for line in lines.values())


@contextlib.contextmanager
def served(page):
    """Serve a page of metrics; give its address."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.send_header("content-type", "text/plain; version=0.0.4")
            self.end_headers()
            self.wfile.write(page.encode())

        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"127.0.0.1:{server.server_port}"
        server.shutdown()


@contextlib.contextmanager
def prometheus(folder, targets):
    """Run a Prometheus with the rules that scrapes some addresses; give a client of it once it has scraped twice."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    given = {
        "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
        "rule_files": [str(DOCS / "deploy/prometheus/rules.yml")],
        "scrape_configs": [{"job_name": "stayline", "static_configs": [{"targets": targets}]}],
    }
    (folder / "prometheus.yml").write_text(json.dumps(given))
    places = [f"--config.file={folder / 'prometheus.yml'}", f"--storage.tsdb.path={folder / 'data'}"]
    process = subprocess.Popen(
        [needs("prometheus"), *places, f"--web.listen-address={address}"], stderr=subprocess.DEVNULL
    )
    try:
        with httpx2.Client(base_url=f"http://{address}/api/v1", trust_env=False, timeout=30) as client:

            def scraped_twice():
                with contextlib.suppress(httpx2.TransportError, json.JSONDecodeError):  # not there yet; not ready yet
                    query = {"query": "min(count_over_time(stayline_build_info[5m])) >= 2"}
                    return client.get("/query", params=query).json().get("data", {}).get("result")

            until(scraped_twice, "two scrapes")
            yield client
    finally:
        process.terminate()
        process.wait()


def test_a_real_prometheus_answers_every_query_and_evaluates_every_rule(tmp_path):
    with served(scraped()) as one, served(scraped_of_inputs()) as other, prometheus(tmp_path, [one, other]) as client:
        empty = []
        for text in EXPRESSIONS:
            query = text.replace("$__rate_interval", "1m").replace("$instance", ".*")
            answer = client.get("/query", params={"query": query}).json()
            assert answer["status"] == "success", (text, answer)
            empty += [] if answer["data"]["result"] else [text]
        assert empty == []

        def evaluated():
            groups = client.get("/rules").json()["data"]["groups"]
            found = [rule for group in groups for rule in group["rules"]]
            return found if all(rule["health"] != "unknown" for rule in found) else None

        assert {rule["health"] for rule in until(evaluated, "an evaluation of each rule")} == {"ok"}
