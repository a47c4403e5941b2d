"""Alert rules on Stayline itself: each fires when it must, resolves, and is silent where there is no data."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml
from metrics_kit import families, scraped, scraped_of_inputs
from needs_kit import needs

ROOT = Path(__file__).parent.parent
RULES = ROOT / "docs" / "deploy" / "prometheus" / "rules.yml"
RUNBOOK = ROOT / "docs" / "operations.md"

WHERE = 'instance="i",job="stayline"'
FLOWS = f'stayline_records_total{{{WHERE},outcome="applied"}}'
TOOK = "stayline_notification_to_delivery_seconds"


def one(metric, *labels):
    return f"{metric}{{{','.join([WHERE, *labels])}}}"


CRM = 'output="crm"'
OPENED = one("stayline_alerts_total", 'event="opened"', 'kind="redial"', 'severity="minor"')
NEEDED = one("stayline_outcomes_total", 'result="fixed"')
NOT_NEEDED = one("stayline_outcomes_total", 'result="not_needed"')
DEAD = one("stayline_records_total", 'outcome="dead_lettered"')
LATE = one("stayline_records_total", 'outcome="late"')
COUNT, SOON = one(f"{TOOK}_count", CRM), one(f"{TOOK}_bucket", CRM, 'le="30.0"')
NOTIFIED = one("stayline_read_to_notification_seconds_count")
AT_ONCE = one("stayline_read_to_notification_seconds_bucket", 'le="1.0"')
CHECKPOINTS = [one("stayline_checkpoint_seconds_bucket", f'le="{bound}"') for bound in ("5.0", "10.0", "+Inf")]
ROOM = {one("stayline_customers"): "95x9000", one("stayline_customers_max"): "100x9000"}
MANY = {one("stayline_customers"): "100000x9000", one("stayline_false_alarm_days"): "10000x9000"}

TOLD, ANNOUNCED = (f'stayline_incident_role{{instance="{i}",role="{role}"}}' for i, role in
                   (("i", "told"), ("watcher", "announced")))  # fmt: skip
DELAYS = [f'stayline_watermark_delay_seconds{{instance="{instance}"}}' for instance in ("i", "watcher")]

FLAT, GROWS, UNKNOWN = "0x9000", "0+600x9000", " ".join(["NaN"] * 15)

FIRING = {
    "StaylineDown": ({f"up{{{WHERE}}}": "1x9 0x30 1x200"}, 15, 60),
    "StaylineAbsent": ({one("stayline_build_info"): "1x9 _x30 1x200"}, 30, 60),
    "StaylineRestarting": ({one("process_start_time_seconds"): "1 2 3 4 5 5x200"}, 6, 120),
    "StaylineNothingRead": ({FLOWS: "0+60x9 600x40 600+60x200"}, 40, 120),
    "StaylineBehind": ({FLOWS: GROWS, one("stayline_watermark_delay_seconds"): "5x9 2000x30 5x200"}, 30, 60),
    "StaylineLagGrows": ({one("stayline_input_lag_messages", 'topic="t"', 'partition="0"'):
                          "20000+500x60 0x200"}, 40, 120),
    "StaylineInputLost": ({one("stayline_input_lost_messages_total"): "0x9 7x200"}, 12, 60),
    "StaylineDeadLetters": ({FLOWS: GROWS, DEAD: "0+60x60 3600x200"}, 40, 120),
    "StaylineLateRecords": ({FLOWS: GROWS, LATE: "0+60x120 7200x300"}, 110, 240),
    "StaylineSpoolFills": ({one("stayline_spool_bytes"): "8e9x30 1e6x200"}, 20, 60),
    "StaylineNoCheckpoint": ({FLOWS: GROWS, one("stayline_checkpoint_time_seconds"): "0x30 3600x60"}, 20, 62),
    "StaylineDiskFills": ({one("stayline_state_free_bytes"): "9e9x30 9e9-1e8x60 9e9x300"}, 85, 300),
    "StaylineSlowCheckpoints": (
        dict(zip(CHECKPOINTS, ["0+1x60 60+12x200", "0+6x60 360+12x200", "0+12x300"], strict=True)), 40, 200),
    "StaylineCustomersEvicted": ({one("stayline_customers_evicted_total"): "0+9x150 1350x300"} | ROOM, 140, 300),
    "StaylineSlowDetection": ({NOTIFIED: "0+10x300", AT_ONCE: "0+5x120 600+10x180"}, 100, 280),
    "StaylineWatcherMissing": ({TOLD: "1x100", ANNOUNCED: "1x9 _x30 1x60"}, 20, 60),
    "StaylineWatcherBehind": ({TOLD: "1x100", ANNOUNCED: "1x100",
                               DELAYS[0]: "5x100", DELAYS[1]: "5x9 5+60x30 5x60"}, 30, 60),
    "StaylineDeliveryBudgetBurns": ({COUNT: "0+10x600", SOON: "0+1x120 120+10x480"}, 100, 590),
    "StaylineOutputFails": ({one("stayline_output_state", CRM, 'state="open"'): "0x9 1x30 0x200"}, 30, 60),
    "StaylineOutputMisconfigured": ({one("stayline_output_misconfigured", CRM): "0x9 1x30 0x200"}, 20, 60),
    "StaylineOutputDisabled": ({one("stayline_output_state", CRM, 'state="disabled"'): "0x9 1x30 0x200"}, 12, 60),
    "StaylineOutboxOld": ({one("stayline_outbox_oldest_seconds", CRM): "1000+60x30 0x200",
                           one("stayline_outbox_held", CRM, 'reason="quiet_hours"'): FLAT}, 20, 60),
    "StaylineBacklogFills": ({one("stayline_outbox_pending", CRM): "90x30 0x200",
                              one("stayline_outbox_pending_max", CRM): "100x300"}, 20, 60),
    "StaylineDeliveriesGivenUp": ({one("stayline_dead_deliveries", CRM, 'reason="expired"'): "2x30 0x200"}, 20, 60),
    "StaylineBodiesDiffer": ({one("stayline_outbox_conflicts_total"): "0x9 1x30 0x200"}, 12, 60),
    "StaylineNoAlerts": ({OPENED: "5x3000 6x300"} | MANY, 1600, 3100),
    "StaylineAlertStorm": ({OPENED: "0+5x60 300x300", one("stayline_alerts_per_day_max"): "200x400"}, 60, 200),
    "StaylineOverBudget": ({one("stayline_cases_deferred_total"): "0+1x100 100x3000",
                            one("stayline_alerts_per_day_max"): "200x4000"}, 200, 2000),
    "StaylineFalseAlerts": ({NEEDED: "0+1x300 300+9x9000", NOT_NEEDED: "0+1x300 300x9000"}, 290, 3000),
    # The process begins anew after a quarter of an hour and has heard of no canary by then.
    "StaylineCanarySilent": ({one("stayline_canary_time_seconds"): f"0x15 {UNKNOWN} 1800+60x60"}, 29, 60),
    "StaylineMiscalibrated": ({one("stayline_churn_calibration_error_ratio"): "0.05x400 0.01x100"}, 390, 450),
}  # fmt: skip
"""Alert -> series as minutes go by, a minute at which it must fire, and a later one at which it must have resolved."""

HELD = one("stayline_outbox_held", CRM, 'reason="quiet_hours"')
QUIET = {
    "StaylineDeliveryBudgetBurns": {COUNT: "0+10x600", SOON: "0x600", HELD: "5x600"},
    "StaylineOutboxOld": {one("stayline_outbox_oldest_seconds", CRM): "90000x600", HELD: "1x600"},
    "StaylineBehind": {FLOWS: "600x600", one("stayline_watermark_delay_seconds"): "90000x600"},
    "StaylineNoCheckpoint": {FLOWS: "600x600", one("stayline_checkpoint_time_seconds"): "0x600"},
    "StaylineCustomersEvicted": {one("stayline_customers_evicted_total"): "0+9x600",
                                 one("stayline_customers"): "50x600", one("stayline_customers_max"): "100x600"},
    "StaylineNoAlerts": {OPENED: "0x600", one("stayline_customers"): "100x600",
                         one("stayline_false_alarm_days"): "10000x600"},
    "StaylineFalseAlerts": {NOT_NEEDED: "0+0.05x100 5x500"},
    "StaylineCanarySilent": {one("stayline_canary_time_seconds"): UNKNOWN},
    "StaylineDiskFills": {one("stayline_state_free_bytes"): "5e9-1e6x600"},
    # Without a watcher each finds for itself; and at night nobody calls.
    "StaylineWatcherMissing": {one("stayline_incident_role", 'role="found"'): "1x600"},
    "StaylineWatcherBehind": {TOLD: "1x600", ANNOUNCED: "1x600", DELAYS[0]: "5+60x600", DELAYS[1]: "5+60x600"},
}  # fmt: skip
"""Alert -> what looks like its trouble and is none: it must stay silent for ten hours."""

NO_DATA = {"StaylineAbsent", "StaylineWatchdog"}
"""What fires where there is no data at all."""


def rules():
    return [rule for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]]


ALERTS = {rule["alert"]: rule for rule in rules() if "alert" in rule}


def fires(alert, minute, *, expected):
    return {
        "expr": f'count(ALERTS{{alertname="{alert}",alertstate="firing"}}) or vector(0)',
        "eval_time": f"{minute}m",
        "exp_samples": [{"labels": "{}", "value": int(expected)}],
    }


def case(name, series, questions):
    given = [{"series": text, "values": values} for text, values in series.items()]
    return {"name": name, "interval": "1m", "input_series": given, "promql_expr_test": questions}


def promtool(folder, cases):
    (folder / "test.yml").write_text(
        json.dumps({"rule_files": [str(RULES)], "evaluation_interval": "1m", "tests": cases})
    )
    done = subprocess.run(
        [needs("promtool"), "test", "rules", str(folder / "test.yml")], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_alert_fires_when_it_must_and_resolves(tmp_path):
    cases = [
        case(alert, series, [fires(alert, 0, expected=False), fires(alert, at, expected=True),
                             fires(alert, over, expected=False)])
        for alert, (series, at, over) in FIRING.items()
    ]  # fmt: skip
    promtool(tmp_path, cases)
    assert set(FIRING) | {"StaylineWatchdog"} == set(ALERTS)


def test_what_only_looks_like_trouble_raises_nothing(tmp_path):
    promtool(tmp_path, [case(f"quiet {a}", s, [fires(a, m, expected=False) for m in (60, 300, 590)])
                        for a, s in QUIET.items()])  # fmt: skip


def test_where_there_is_no_data_only_its_absence_is_told(tmp_path):
    questions = [fires(alert, 590, expected=alert in NO_DATA) for alert in ALERTS]
    promtool(tmp_path, [case("no data", {}, questions)])


def test_a_test_of_a_rule_that_does_not_hold_is_found_out(tmp_path):
    with pytest.raises(AssertionError):
        promtool(tmp_path, [case("wrong", {}, [fires("StaylineDown", 5, expected=True)])])


def test_every_metric_of_every_rule_exists_in_a_live_scrape():
    shown = {*families(scraped()), *families(scraped_of_inputs())}
    named = {name for rule in rules() for name in re.findall(r"\b(?:stayline|process)_\w+", rule["expr"])}
    assert named <= shown


def test_every_alert_has_a_sentence_a_severity_and_a_page_of_the_runbook():
    headings = {line[4:].strip().lower() for line in RUNBOOK.read_text().splitlines() if line.startswith("### ")}
    for name, rule in ALERTS.items():
        assert rule["annotations"]["summary"].endswith("."), name
        assert rule["labels"]["severity"] in {"critical", "warning", "none"}, name
        page, _, place = rule["annotations"]["runbook_url"].partition("#")
        assert ROOT / page == RUNBOOK
        assert place in headings, name


def test_a_summary_names_only_labels_that_its_alert_has():
    for name, rule in ALERTS.items():
        used = set(re.findall(r"\$labels\.(\w+)", rule["annotations"]["summary"]))
        kept = {"instance", "job"} if "by (" not in rule["expr"] and "ratio" not in rule["expr"] else set()
        kept |= {one for by in re.findall(r"by \(([^)]*)\)", rule["expr"]) for one in re.split(r",\s*", by)}
        assert used <= kept, name


def test_promtool_finds_the_rules_well_formed():
    assert shutil.which("promtool") == needs("promtool")
    subprocess.run([needs("promtool"), "check", "rules", str(RULES)], check=True, capture_output=True)
