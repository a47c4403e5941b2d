"""What deployments are made of: containers, Kubernetes, systemd, and the telco that feeds the composed one."""

import itertools
import json
import re
import shutil
import subprocess
import sys
import tomllib
import warnings
import zipfile
from pathlib import Path

import httpx2
import kubernetes_validate
import orjson
import pytest
import yaml
from needs_kit import needs

from bench.simulator.feed import BATCH, moved, paced, to_http
from bench.simulator.live import EVENING, story
from dataflows.config import load, resolve_secrets, runnable
from dataflows.inputs.files import Place
from dataflows.inputs.http import Server, events_application
from dataflows.inputs.spool import Spool

ROOT = Path(__file__).parent.parent
DEPLOY = ROOT / "docs" / "deploy"
COMPOSE = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
SERVICES = COMPOSE["services"]
SECRET = "whsec_" + "A" * 43 + "="


class TestCompose:
    def test_docker_compose_finds_nothing_wrong(self):
        environ = {"STAYLINE_CRM_SECRET": SECRET, "PATH": "/usr/bin:/bin"}
        told = subprocess.run(
            [needs("docker-compose"), "-f", ROOT / "docker-compose.yml", "config", "-q"],
            env=environ, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert (told.returncode, told.stdout, told.stderr) == (0, "", "")

    def test_without_the_secret_it_says_what_is_missing(self):
        told = subprocess.run(
            [needs("docker-compose"), "-f", ROOT / "docker-compose.yml", "config", "-q"],
            env={"PATH": "/usr/bin:/bin"}, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert told.returncode != 0
        assert "STAYLINE_CRM_SECRET" in told.stderr

    @pytest.mark.parametrize("name", SERVICES)
    def test_every_service_is_pinned_bounded_and_may_do_nothing_more_than_it_must(self, name):
        one = SERVICES[name]
        assert re.fullmatch(r"[a-z/]+:v?\d+\.\d+(\.\d+)+", one["image"])
        assert one["read_only"] is True
        assert one["cap_drop"] == ["ALL"]
        assert one["security_opt"] == ["no-new-privileges:true"]
        assert one["mem_limit"]
        # The image of Stayline has its own user, and so has its check of health.
        assert one["image"].startswith("stayline:") or not str(one["user"]).startswith("0")
        assert all(port.startswith("127.0.0.1:") for port in one.get("ports", []))

    def test_whatever_another_service_waits_for_has_a_check_of_health(self):
        for one in SERVICES.values():
            for name, how in one.get("depends_on", {}).items():
                checked = "healthcheck" in SERVICES[name] or "build" in SERVICES[name]
                assert checked if how["condition"] == "service_healthy" else SERVICES[name]["restart"] == "no"

    def test_nothing_makes_waiting_for_all_of_them_fail(self):
        # `up --wait` takes a service whose check is switched off, though it runs, for a failure.
        assert not any(one.get("healthcheck", {}).get("disable") for one in SERVICES.values())

    def test_every_file_that_is_mounted_is_there(self):
        for one in SERVICES.values():
            for source in (volume.split(":")[0] for volume in one.get("volumes", [])):
                assert source in COMPOSE["volumes"] or (ROOT / source).exists()

    def test_no_secret_stands_in_it(self):
        text = (ROOT / "docker-compose.yml").read_text()
        assert not re.findall(r"(?im)^ *[A-Z_]*(?:secret|password|token)[A-Z_]*: *(?!\$\{)\S+", text)

    def test_its_configuration_holds_and_can_be_run(self):
        config = load(DEPLOY / "compose" / "stayline.toml", {})
        assert runnable(config) == []
        assert resolve_secrets(config, {"STAYLINE_CRM_SECRET": SECRET}).webhooks == {"crm": (SECRET,)}

    def test_grafana_finds_the_dashboards_and_prometheus_the_rules(self):
        provider = yaml.safe_load((DEPLOY / "grafana/provisioning/dashboards/stayline.yml").read_text())
        mounted = [volume.split(":")[1] for volume in SERVICES["grafana"]["volumes"]]
        assert provider["providers"][0]["options"]["path"] in mounted
        given = yaml.safe_load((DEPLOY / "prometheus/prometheus.yml").read_text())
        assert set(given["rule_files"]) <= {volume.split(":")[1] for volume in SERVICES["prometheus"]["volumes"]}
        assert given["scrape_configs"][0]["job_name"] == "stayline"


def pins(path):
    """Return what a lock file installs: name -> version and digests, without who asked for it."""
    parts = re.split(r"(?m)^(?=[a-z0-9])", re.sub(r"(?m)^ +#.*\n", "", path.read_text()))
    return {part.partition("==")[0]: part for part in parts if part}


class TestImage:
    def test_hadolint_finds_nothing_to_say(self):
        hadolint = Path(sys.executable).with_name("hadolint")
        assert subprocess.run([hadolint, ROOT / "Dockerfile"], capture_output=True, check=False).stdout == b""

    def test_hadolint_would_find_something(self, tmp_path):
        (tmp_path / "Dockerfile").write_text("FROM python\nRUN cd /tmp\n")
        hadolint = Path(sys.executable).with_name("hadolint")
        assert subprocess.run([hadolint, tmp_path / "Dockerfile"], capture_output=True, check=False).returncode != 0

    def test_it_runs_as_the_processor_that_its_code_was_compiled_for(self):
        stages = (ROOT / "Dockerfile").read_text().split("\nFROM ")[1:]
        assert [re.findall(r"NUMBA_CPU_NAME=(\S+)", stage) for stage in stages] == [["generic"]] * 2
        # It is compiled beside the sources, from where `schemas.kernels` takes it.
        assert "NUMBA_CACHE_DIR" not in stages[0]

    def test_everything_that_it_copies_is_let_in_and_nothing_else_of_ours(self):
        copied = re.findall(r"^COPY (?!--from)(.*) \S+$", (ROOT / "Dockerfile").read_text(), re.MULTILINE)
        wanted = {name for line in copied for name in line.split()}
        let_in = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
        assert let_in == wanted
        assert all((ROOT / name).exists() for name in wanted)

    def test_its_libraries_are_those_of_the_tests_and_no_tool_is_among_them(self):
        locked, run = (pins(ROOT / name) for name in ("requirements.lock", "requirements-run.lock"))
        assert {name: locked.get(name) for name in run} == run
        project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
        asked = {name: {re.match(r"[\w-]+", one)[0] for one in given} for name, given in
                 {"run": project["dependencies"], **project["optional-dependencies"]}.items()}  # fmt: skip
        assert asked["run"] | asked["build"] <= set(run)
        assert not (asked["dev"] - asked["build"]) & set(run)

    def test_what_it_installs_is_the_whole_program(self, tmp_path):
        rooms = ["bench", "dataflows", "detectors", "schemas", "sinks"]
        leave = shutil.ignore_patterns("__pycache__", "results")
        for name in rooms:
            shutil.copytree(ROOT / name, tmp_path / name, ignore=leave)
        for name in ("pyproject.toml", "README.md", "LICENSE"):
            shutil.copy(ROOT / name, tmp_path)
        quiet = ["--quiet", "--disable-pip-version-check", "--no-deps", "--no-build-isolation"]
        subprocess.run([sys.executable, "-m", "pip", "wheel", *quiet, "."], cwd=tmp_path, check=True)
        installed = set(zipfile.ZipFile(next(tmp_path.glob("*.whl"))).namelist())
        there = {path.relative_to(tmp_path).as_posix() for name in rooms for path in (tmp_path / name).rglob("*.*")}
        assert {name for name in installed if ".dist-info/" not in name} == there


@pytest.fixture(scope="module")
def rendered():
    told = subprocess.run(
        [needs("kustomize"), "build", DEPLOY / "kubernetes" / "example"], capture_output=True, text=True, check=True
    )
    return list(yaml.safe_load_all(told.stdout))


class TestKubernetes:
    def of(self, rendered, kind):
        return [one for one in rendered if one["kind"] == kind]

    def test_every_part_fits_the_schema_of_its_kind(self, rendered):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            for one in rendered:
                # What the Prometheus operator brings is no part of Kubernetes' own schema.
                if one["kind"] != "ServiceMonitor":
                    kubernetes_validate.validate(one, "1.31", strict=True)
        kinds = {one["kind"] for one in rendered}
        assert kinds == {"Namespace", "ConfigMap", "Service", "StatefulSet", "PodDisruptionBudget", "NetworkPolicy",
                         "ServiceMonitor"}  # fmt: skip

    def test_what_does_not_fit_is_found(self, rendered):
        wrong = self.of(rendered, "StatefulSet")[0] | {"spec": {"replicaz": 1}}
        with pytest.raises(kubernetes_validate.ValidationError):
            kubernetes_validate.validate(wrong, "1.31", strict=True)

    def test_the_ranges_cover_the_topic_and_no_partition_twice(self, rendered):
        given = [self.environment(one)["STAYLINE_INPUT__KAFKA__PARTITIONS"] for one in self.of(rendered, "StatefulSet")]
        assert sorted(itertools.chain(*map(json.loads, given))) == list(range(8))

    def environment(self, stateful):
        variables = stateful["spec"]["template"]["spec"]["containers"][0]["env"]
        return {one["name"]: one["value"] for one in variables if "value" in one}

    def test_the_configuration_of_every_range_holds_and_can_be_run(self, rendered, tmp_path):
        (tmp_path / "c.toml").write_text(self.of(rendered, "ConfigMap")[0]["data"]["stayline.toml"])
        for one in self.of(rendered, "StatefulSet"):
            environ = self.environment(one) | {"STAYLINE_CRM_SECRET": SECRET, "STAYLINE_KAFKA_PASSWORD": "p"}
            config = load(tmp_path / "c.toml", environ)
            assert runnable(config) == []
            resolve_secrets(config, environ)

    def test_a_pod_runs_as_nobody_special_and_its_selectors_meet_it_alone(self, rendered):
        for one in self.of(rendered, "StatefulSet"):
            spec = one["spec"]["template"]["spec"]
            assert spec["securityContext"]["runAsNonRoot"]
            assert spec["containers"][0]["securityContext"]["readOnlyRootFilesystem"]
            assert one["spec"]["replicas"] == 1
            assert one["spec"]["selector"]["matchLabels"] == one["spec"]["template"]["metadata"]["labels"]
        selectors = [tuple(sorted(one["spec"]["selector"]["matchLabels"].items()))
                     for one in self.of(rendered, "StatefulSet")]  # fmt: skip
        assert len(set(selectors)) == len(selectors) == 2


class TestSystemd:
    UNIT = DEPLOY / "systemd" / "stayline.service"

    def test_systemd_finds_nothing_wrong_but_that_it_is_not_installed_here(self, tmp_path):
        text = self.UNIT.read_text().replace("/opt/stayline/.venv/bin/stayline", shutil.which("true"))
        (tmp_path / "stayline.service").write_text(text)
        told = subprocess.run(
            [needs("systemd-analyze"), "verify", tmp_path / "stayline.service"],
            capture_output=True,
            text=True,
            check=False,
        )
        ours = [line for line in told.stderr.splitlines() if "stayline.service" in line]
        assert ours == []

    def test_it_is_shut_in(self):
        told = subprocess.run(
            [needs("systemd-analyze"), "security", "--offline=yes", "--threshold=20", self.UNIT],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert told.returncode == 0, told.stdout


class TestFeed:
    def test_moving_an_evening_moves_every_time_and_nothing_else(self):
        by_ms = 86_400_000
        lines = list(itertools.islice(story(EVENING, 120.0), 3_000))
        for (at_ms, line), (later_ms, later) in zip(lines, moved(lines, by_ms), strict=True):
            assert later_ms == at_ms + by_ms
            before, after = orjson.loads(line), orjson.loads(later)
            for key, value in before.items():
                is_time = key.endswith("_ms") and isinstance(value, int) and value > 1e12
                assert after[key] == (value + by_ms if is_time else value)

    def test_what_has_passed_is_given_at_once_and_the_rest_as_it_happens(self):
        clock = [1_000]
        slept = []

        def sleep(seconds):
            slept.append(seconds)
            clock[0] += round(seconds * 1000)

        lines = [(400, b"a"), (900, b"b"), (1_500, b"c"), (1_600, b"d"), (2_100, b"e")]
        given = list(paced(lines, lambda: clock[0], sleep))
        assert given == [[b"a", b"b"], [b"c", b"d"], [b"e"]]
        assert slept == [0.5, 0.1, 0.5]

    def test_a_batch_is_no_larger_than_it_may_be(self):
        given = list(paced([(1, b"x")] * (2 * BATCH + 1), lambda: 5, lambda _: None))
        assert [len(batch) for batch in given] == [BATCH, BATCH, 1]

    def test_what_is_fed_by_http_is_taken_as_it_is(self, tmp_path):
        spool = Spool(tmp_path / "spool")
        server = Server(events_application(spool), "127.0.0.1", 0)
        server.start()
        lines = [line for _, line in itertools.islice(story(EVENING, 120.0), 50)]
        with httpx2.Client(base_url=f"http://{server.address}", trust_env=False) as client:
            to_http(client)(lines)
        server.stop()
        taken = b"".join(cut.chunk.data for cut in iter(spool.read(Place()).__next__, None))
        assert taken == b"".join(lines)

    def test_it_waits_for_a_stayline_that_does_not_listen_yet(self, capsys):
        answers = iter([httpx2.ConnectError("refused"), httpx2.Response(503), httpx2.Response(202)])

        def answer(_):
            given = next(answers)
            if isinstance(given, Exception):
                raise given
            return given

        with httpx2.Client(base_url="http://127.0.0.1:1", transport=httpx2.MockTransport(answer)) as client:
            to_http(client)([b"{}\n"])
        assert next(answers, None) is None
        assert capsys.readouterr().err.count("waits for") == 1
