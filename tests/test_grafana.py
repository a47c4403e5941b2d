"""The dashboards fit the types that the deployed version of Grafana publishes for them and for its panels."""

import copy
import json
import re
import subprocess
from pathlib import Path

import pytest
from needs_kit import needs

ROOT = Path(__file__).parent.parent
VERSION = re.search(r"grafana/grafana:(\S+)", (ROOT / "docker-compose.yml").read_text())[1]
TYPESCRIPT = "5.8.3"
MODELS = [json.loads(path.read_text()) for path in sorted((ROOT / "docs/deploy/grafana/dashboards").glob("*.json"))]
COMPILED = ("--noEmit", "--strict", "--skipLibCheck", "--module", "esnext", "--moduleResolution", "bundler")
RAW = "./node_modules/@grafana/schema/dist/esm/raw"

# JSON holds the values of enumerations, not their names. Panels fill in themselves what their options leave out.
HEAD = f"""
import * as dashboard from '{RAW}/dashboard/x/dashboard_types.gen';
import * as timeseries from '{RAW}/composable/timeseries/panelcfg/x/TimeSeriesPanelCfg_types.gen';
import * as stat from '{RAW}/composable/stat/panelcfg/x/StatPanelCfg_types.gen';
import * as table from '{RAW}/composable/table/panelcfg/x/TablePanelCfg_types.gen';
import * as statetimeline from '{RAW}/composable/statetimeline/panelcfg/x/StateTimelinePanelCfg_types.gen';
type Valued<T> = T extends string ? (string extends T ? string : `${{T}}`) : T extends (infer U)[] ? Valued<U>[]
  : T extends object ? {{ [K in keyof T]: Valued<T[K]> }} : T;
type Part<T> = T extends (infer U)[] ? Part<U>[] : T extends object ? {{ [K in keyof T]?: Part<T[K]> }} : T;
"""


def typed(model):
    """Return a dashboard as statements that a compiler of types accepts if Grafana knows all that stands in it."""
    model = copy.deepcopy(model)
    said = []
    for panel in model.pop("panels"):
        if panel["type"] == "row":
            said.append(("Valued<dashboard.RowPanel>", panel))
            continue
        kind = panel["type"].replace("-", "")
        said.append((f"Part<Valued<{kind}.Options>>", panel.pop("options")))
        if "custom" in panel["fieldConfig"]["defaults"]:
            said.append((f"Part<Valued<{kind}.FieldConfig>>", panel["fieldConfig"]["defaults"].pop("custom")))
        said.append(("Valued<dashboard.Panel>", panel))
    said.append(("Valued<dashboard.Dashboard>", model))
    return HEAD + "".join(f"export const c{k}: {kind} = {json.dumps(value)};\n" for k, (kind, value) in enumerate(said))


@pytest.fixture(scope="module")
def compiled(tmp_path_factory):
    """Return what says of dashboards which of their places the types do not allow."""
    folder = tmp_path_factory.mktemp("grafana")
    wanted = [f"@grafana/schema@{VERSION}", f"typescript@{TYPESCRIPT}"]
    quiet = ["--silent", "--ignore-scripts", "--no-audit", "--no-fund"]
    subprocess.run([needs("npm"), "install", *quiet, "--prefix", folder, *wanted], cwd=folder, check=True)

    def faults(models):
        for k, model in enumerate(models):
            (folder / f"d{k}.ts").write_text(typed(model))
        files = [f"d{k}.ts" for k in range(len(models))]
        command = [folder / "node_modules/.bin/tsc", *COMPILED, *files]
        told = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False).stdout
        return [line for line in told.splitlines() if "error TS" in line]

    return faults


def test_every_dashboard_fits(compiled):
    assert compiled(MODELS) == []


def broken(change):
    model = copy.deepcopy(MODELS[0])
    change(next(panel for panel in model["panels"] if panel["type"] == "timeseries"), model)
    return model


def test_what_grafana_does_not_know_is_found(compiled):
    wrong = [
        broken(lambda panel, _: panel["options"]["legend"].update(displayMode="lst")),
        broken(lambda panel, _: panel["fieldConfig"]["defaults"]["custom"].update(fillOpacty=8)),
        broken(lambda panel, _: panel["fieldConfig"]["defaults"].update(units="s")),
        broken(lambda panel, _: panel.update(gridPos={"x": 0, "y": 0, "w": "all", "h": 8})),
        broken(lambda _, model: model["links"][0].pop("keepTime")),
        broken(lambda _, model: model.update(graphTooltip="shared")),
    ]
    assert [line.split("(")[0] for line in compiled(wrong)] == [f"d{k}.ts" for k in range(len(wrong))]
