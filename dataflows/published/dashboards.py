"""The four dashboards: does it run, how good is the service, how healthy are detection and churn, does it deliver."""

from dataflows.published.panels import RARE, Dashboard, Panel, Row, of, per_day, per_s, quantile, total


def _shares(metric: str, *quantiles: float) -> dict[str, str]:
    """Return quantiles of a histogram by their legends."""
    return {f"p{100 * q:g}": quantile(q, metric) for q in quantiles}


def _rare_shares(metric: str, *quantiles: float, by: str = "") -> dict[str, str]:
    """Return the same of what does not happen every minute, kept apart by a label."""
    names = "" if not by else f" {{{{{by}}}}}"
    return {f"p{100 * q:g}{names}": quantile(q, metric, by, RARE) for q in quantiles}


AT_A_GLANCE = Row(
    "At a glance",
    (
        Panel("Processes", "Processes that answered the last scrape.", "short",
              {"": "count(stayline_build_info)"}, "stat"),
        Panel("Records", "Records read a second, whatever became of them.", "recps",
              {"": per_s("stayline_records_total")}, "stat"),
        Panel("Behind", "How far the newest event is behind the clock. Grows while the input stands still.", "s",
              {"": f"max({of('stayline_watermark_delay_seconds')})"}, "stat", 900),
        Panel("Room for customers", "Share of `customers_max` in use. At 100% the longest silent are evicted.",
              "percentunit", {"": f"max({of('stayline_customers')} / {of('stayline_customers_max')})"}, "stat", 0.9),
        Panel("Alerts of a day", "Opened within 24 hours, beside what the team can call.", "short",
              {"opened": per_day("stayline_alerts_total", event="opened"),
               "budget": f"max({of('stayline_alerts_per_day_max')})"}, "stat"),
        Panel("Waiting to be delivered", "Notifications in the outbox, all outputs together.", "short",
              {"": total("stayline_outbox_pending")}, "stat", 1000),
    ),
    across=6,
)  # fmt: skip

INPUT = Row(
    "Input",
    (
        Panel("Records by outcome", "Applied, known already, late, dead-lettered: the four add up to what was read.",
              "recps", {"{{outcome}}": per_s("stayline_records_total", "outcome")}),
        Panel("Events by type", "What the records were. A type that stops has lost its source.", "eps",
              {"{{type}}": per_s("stayline_events_total", "type")}),
        Panel("Dead letters by reason", "Records that could not be read. `stayline dead-letters list` shows them.",
              "recps", {"{{reason}}": per_s("stayline_dead_letters_total", "reason")}),
        Panel("Behind the clock", "Now less the newest event time: what detection cannot know yet.", "s",
              {"{{instance}}": of("stayline_watermark_delay_seconds")}, limit=900),
        Panel("Kafka lag", "Messages that wait to be read, by topic. Growth means that reading is too slow. Only with "
              "Kafka as the input.", "short", {"{{topic}}": total("stayline_input_lag_messages", "topic")}),
        Panel("Lost before they were read", "Kafka messages deleted unread, datagrams that the kernel dropped.",
              "short", {"Kafka": per_day("stayline_input_lost_messages_total"),
                        "HEP": per_day("stayline_hep_dropped_packets_total")}, limit=1),
    ),
)  # fmt: skip

WORK = Row(
    "Work",
    (
        Panel("Decoding a chunk", "Bytes to columns, a chunk of up to a megabyte.", "s",
              _shares("stayline_decode_seconds", 0.5, 0.99)),
        Panel("Applying a chunk", "Events to state. What is slow here slows everything.", "s",
              _shares("stayline_apply_seconds", 0.5, 0.99)),
        Panel("Share of a core", "CPU time a second of each process; one flow uses at most one core.", "percentunit",
              {"{{instance}}": f"rate({of('process_cpu_seconds_total')}[$__rate_interval])"}, limit=0.9),
        Panel("Taking a checkpoint", "Events wait meanwhile; a crash makes the engine read again what came since.",
              "s", _shares("stayline_checkpoint_seconds", 0.5, 0.99)),
        Panel("Since the last checkpoint", "Grows without end while checkpoints fail, or while nothing comes in.",
              "s", {"{{instance}}": f"time() - {of('stayline_checkpoint_time_seconds')}"}, limit=300),
        Panel("Size of a checkpoint", "The newest snapshot of the engine.", "bytes",
              {"{{instance}}": of("stayline_checkpoint_bytes")}),
    ),
)  # fmt: skip

MEMORY = Row(
    "Memory and disk",
    (
        Panel("Customers", "Held in memory, and how many may be.", "short",
              {"resident": total("stayline_customers"), "max": total("stayline_customers_max")}),
        Panel("Customers evicted", "Forgotten for want of room. More than the idle ones: raise `customers_max`.",
              "short", {"a day": per_day("stayline_customers_evicted_total")}),
        Panel("Resident memory", "Of each process.", "bytes",
              {"{{instance}}": of("process_resident_memory_bytes")}),
        Panel("State on disk", "By part of the state directory.", "bytes",
              {"{{part}}": total("stayline_state_bytes", "part")}),
        Panel("Room on disk", "Free bytes where the state directory is. Without room nothing is read: no checkpoint is "
              "written then.", "bytes", {"{{instance}}": of("stayline_state_free_bytes")}),
        Panel("Spool", "Posted records and packets that are kept until checkpoints have passed them. Only with HTTP or "
              "HEP as the input.", "bytes", {"{{instance}}": of("stayline_spool_bytes")}, limit=7 << 30),
        Panel("Open files", "Of each process.", "short", {"{{instance}}": of("process_open_fds")}),
    ),
)  # fmt: skip

OPERATIONS = Dashboard(
    "stayline-operations",
    "Stayline: operations",
    "Does it run: input, work, memory, disk.",
    (AT_A_GLANCE, INPUT, WORK, MEMORY),
)

CALLS = Row(
    "Calls",
    (
        Panel("Calls", "Finished call legs a second.", "cps",
              {"attempts": per_s("stayline_events_total", type="call"),
               "answered": per_s("stayline_calls_answered_total")}),
        Panel("ASR", "Answer-seizure ratio: answered by attempts (ITU-T E.411).", "percentunit",
              {"ASR": f"{per_s('stayline_calls_answered_total')} / {per_s('stayline_events_total', type='call')}"}),
        Panel("MOS", "Mean of what the sources reported, 1 to 5; not Stayline's own.", "none",
              {"mean": f"{per_s('stayline_call_mos_sum')} / {per_s('stayline_call_mos_count')}"}, span=(1.0, 5.0)),
    ),
)  # fmt: skip

INCIDENTS = Row(
    "Shared faults",
    (
        Panel("Open incidents", "By kind of element; `probe` is a measurement fault, the calls were fine.", "short",
              {"{{element_kind}}": total("stayline_incidents_open", "element_kind")}, limit=1),
        Panel("Customers inside", "With a bad call in an open incident.", "short",
              {"customers": total("stayline_incident_customers")}),
        Panel("Incidents of a day", "Opened within 24 hours, by kind of element.", "short",
              {"{{element_kind}}": per_day("stayline_incidents_total", "element_kind", event="opened")}),
        Panel("Cases that an incident explained", "Not told to anybody: the fault was shared.", "short",
              {"a day": per_day("stayline_cases_taken_over_total")}),
    ),
)  # fmt: skip

ELEMENTS_ROW = Row(
    "Network elements",
    (
        Panel("Known", "Elements that events have named, by kind.", "short",
              {"{{element_kind}}": total("stayline_elements", "element_kind")}),
        Panel("Suspicious", "Elements with a month of evidence against them, short of an incident.", "short",
              {"{{element_kind}}": total("stayline_elements_suspicious", "element_kind")}),
        Panel("Worst evidence", "In days without a false alarm that it is worth; an incident opens at a million.",
              "short", {"{{element_kind}}": f"max by (element_kind) ({of('stayline_element_evidence_days_max')})"}),
        Panel("Normal share of bad calls", "As learnt. A drift here moves every threshold.", "percentunit",
              {"{{channel}}, {{element_kind}}":
               f"avg by (channel, element_kind) ({of('stayline_element_baseline_ratio')})"}),
    ),
)  # fmt: skip

QUALITY = Dashboard(
    "stayline-quality",
    "Stayline: service quality",
    "How good the service is: calls, shared faults, elements.",
    (CALLS, INCIDENTS, ELEMENTS_ROW),
)

CASES = Row(
    "Cases",
    (
        Panel("Candidates", "Customers with bad calls that are remembered, short of a case.", "short",
              {"candidates": total("stayline_candidates")}),
        Panel("Open cases by pattern", "Told and not over.", "short",
              {"{{kind}}": total("stayline_cases_open", "kind")}),
        Panel("Open cases by severity", "Told and not over.", "short",
              {"{{severity}}": total("stayline_cases_open", "severity")}),
        Panel("Alerts of a day", "Opened within 24 hours, by pattern.", "short",
              {"{{kind}}": per_day("stayline_alerts_total", "kind", event="opened")}),
        Panel("Cases that wait", "For an incident that would explain them, or for tomorrow's budget.", "short",
              {"{{reason}}": total("stayline_cases_waiting", "reason")}),
        Panel("Cases over budget", "Not told on the day they opened: the team is too small, or a threshold too low.",
              "short", {"a day": per_day("stayline_cases_deferred_total")}, limit=1),
    ),
)  # fmt: skip

HONESTY = Row(
    "Is it right?",
    (
        Panel("Alerts beside the false ones promised",
              "What chance alone opens a day is customers / false_alarm_days. Opened far above it is trouble found; "
              "opened near it may be chance alone.", "none",
              {"opened": per_day("stayline_alerts_total", event="opened"),
               "by chance at most": f"sum({of('stayline_customers')} / {of('stayline_false_alarm_days')})"}),
        Panel("What became of alerts", "As representatives and systems reported it, within 7 days.", "short",
              {"{{result}}": f"sum by (result) (increase({of('stayline_outcomes_total')}[7d]))"}),
    ),
)  # fmt: skip

CHURN = Row(
    "Churn model",
    (
        Panel("Labels", "Customers of whom it is known whether they left. Below five hundred a prior is told.",
              "short", {"learnt": total("stayline_churn_labels_total"), "left": total("stayline_churn_left_total")}),
        Panel("Base rate", "Share of customers that leave within the horizon. A drift here is a changed market.",
              "percentunit", {"{{instance}}": of("stayline_churn_base_ratio")}),
        Panel("Brier score", "Mean squared error of the probability; useful while below the one that knows only the "
              "mean. Empty until labels come.", "none", {"model": of("stayline_churn_brier_score"),
                                 "knows only the mean": of("stayline_churn_brier_base_score")}),
        Panel("Calibration error", "Mean distance of said and seen. Above 2% the probabilities mislead. Empty until "
              "labels come.",
              "percentunit", {"{{instance}}": of("stayline_churn_calibration_error_ratio")}, limit=0.02),
        Panel("Correction", "What calibration does to the score: slope 1 and offset 0 do nothing. Drift moves them.",
              "none", {"slope": of("stayline_churn_calibration_slope"),
                        "offset": of("stayline_churn_calibration_offset")}),
        Panel("Drift", "How often within 7 days the mean of the model's errors was found changed (Page-Hinkley): the "
              "market is no longer what was learnt.", "short",
              {"alarms": f"sum(increase({of('stayline_churn_drift_alarms_total')}[7d]))"}),
        Panel("Reliability", "Probability said and share that left, by the upper end of a bin of probabilities: pairs "
              "should match. A dash: no labels yet.", "percentunit",
              {"said": f"avg by (bin) ({of('stayline_churn_predicted_ratio')})",
               "left": f"avg by (bin) ({of('stayline_churn_observed_ratio')})"}, "table"),
    ),
)  # fmt: skip

DETECTION = Dashboard(
    "stayline-detection",
    "Stayline: detection and churn health",
    "Whether what it says is right: cases, budget, outcomes, calibration.",
    (CASES, HONESTY, CHURN),
)

LATENCY = Row(
    "How soon",
    (
        Panel("Canary", "From a canary's last call to its alert: input, decoding and detection together. Empty where "
              "no canary is sent.", "s", _rare_shares("stayline_canary_delay_seconds", 0.5, 0.99), limit=10),
        Panel("Record to notification", "From the read of the record that raised it to its commit in the outbox.",
              "s", _rare_shares("stayline_read_to_notification_seconds", 0.5, 0.95, 0.99), limit=1),
        Panel("Notification to receiver", "From the commit to the output that took it (of a webhook: its 2xx); quiet "
              "hours and contact caps count.", "s",
              _rare_shares("stayline_notification_to_delivery_seconds", 0.5, 0.95, by="output"), limit=30),
    ),
)  # fmt: skip

OUTBOX = Row(
    "Outbox",
    (
        Panel("Waiting", "By output. At `backlog_max` the input stops.", "short",
              {"{{output}}": total("stayline_outbox_pending", "output")}),
        Panel("Backlog in use", "Share of `backlog_max`.", "percentunit",
              {"{{output}}": f"max by (output) ({of('stayline_outbox_pending')} / "
                             f"{of('stayline_outbox_pending_max')})"}, limit=0.8),
        Panel("Oldest that waits", "By output.", "s",
              {"{{output}}": f"max by (output) ({of('stayline_outbox_oldest_seconds')})"}, limit=300),
        Panel("Held back", "By rule: quiet hours, contact caps. Nothing held is dropped.", "short",
              {"{{reason}}": total("stayline_outbox_held", "reason")}),
        Panel("Bodies that differ", "Notifications of one id with two bodies. More than 0 is a fault of Stayline.",
              "short", {"conflicts": total("stayline_outbox_conflicts_total")}, limit=1),
    ),
)  # fmt: skip

ENDS = Row(
    "What became of it",
    (
        Panel("Deliveries by result", "Delivered, given up, superseded by a newer one, discarded by hand, not wanted.",
              "cps", {"{{result}}": per_s("stayline_deliveries_total", "result")}),
        Panel("Delivered", "By output; not all want the same.", "cps",
              {"{{output}}": per_s("stayline_deliveries_total", "output", result="delivered")}),
        Panel("Given up", "Deliveries that lie dead, by output. `stayline dead-letters list` shows them.", "short",
              {"{{output}}": total("stayline_dead_deliveries", "output")}, limit=1),
        Panel("State of outputs", "Left alone: its receiver fails and is tried once a minute. Ended: it asked for no "
              "more (410); `stayline outputs enable`.", "short",
              {"{{output}}": f"max by (output) ({of('stayline_output_state', state='open')}) + on (output) "
                             f"2 * max by (output) ({of('stayline_output_state', state='disabled')})"},
              "state-timeline", limit=1, words=("sends", "left alone", "ended")),
        Panel("To be put right", "The receiver answered with a redirect, 401, 403, 404: its url, secret or access is "
              "wrong, and retries are slow. `stayline outputs test` says more.", "short",
              {"{{output}}": f"max by (output) ({of('stayline_output_misconfigured')})"},
              "state-timeline", limit=1, words=("in order", "to be put right")),
    ),
)  # fmt: skip

DELIVERY = Dashboard(
    "stayline-delivery",
    "Stayline: delivery",
    "Does it reach its receivers: latency, outbox, results.",
    (LATENCY, OUTBOX, ENDS),
)

DASHBOARDS = (OPERATIONS, QUALITY, DETECTION, DELIVERY)
