"""The desk of a deployment: its database, its server, and what the deployment tells it of itself."""

import threading
from collections.abc import Iterable
from pathlib import Path
from typing import cast

import numpy as np
import orjson
from msgspec import structs, to_builtins

from dataflows.config import Secrets
from dataflows.config.business import catalogue_of
from dataflows.config.desk import Desk
from dataflows.config.settings import Config
from dataflows.inputs.http import Server
from dataflows.inputs.resubmitted import Resubmitted
from dataflows.inputs.spool import Spool
from dataflows.talks import TalkTracks
from detectors.churn.model import ModelReport
from detectors.elements import E_CHANNELS, Elements, element_total
from detectors.engine import RiskEngine
from schemas.errors import StateError
from schemas.events import HANDLED, Outcome
from sinks.desk import oidc
from sinks.desk.app import desk_application
from sinks.desk.database import Database
from sinks.desk.figures import Bin, Figures, Model, ReadFigures, Suspect
from sinks.desk.people import Role
from sinks.desk.resolver import HttpResolver
from sinks.desk.sqlite import SqliteDatabase
from sinks.desk.store import DeskStore
from sinks.desk.views import TakeOutcome
from sinks.outbox import Outbox
from sinks.outputs import Clock

SUSPECT_DAYS = 1.0
"""Elements with less evidence than a healthy one shows every day are not worth a line."""

SUSPECTS_MAX = 40


def open_store(config: Config, folder: Path, clock: Clock) -> DeskStore:
    """Open the desk's cases: in PostgreSQL where the configuration says so, else in a file of the state.

    Raises:
        StaylineError: they are damaged or out of reach.
    """
    url = None if config.desk is None else config.desk.postgres
    if url is None:
        database: Database = SqliteDatabase(folder / "desk.sqlite3")
    else:
        # Loaded where it is asked for: the library needs libpq.
        from sinks.desk.postgres import PostgresDatabase  # noqa: PLC0415

        database = PostgresDatabase(url)
    return DeskStore(database, clock)


def desk_server(
    config: Config, secrets: Secrets, store: DeskStore, take: TakeOutcome, engines: Iterable[RiskEngine], outbox: Outbox
) -> Server:
    """Return the desk's server.

    Raises:
        ConfigError: its address cannot be listened on.
    """
    desk = config.desk or Desk()
    resolver = None
    if desk.resolver is not None and secrets.desk_resolver is not None:
        resolver = HttpResolver(desk.resolver.url, secrets.desk_resolver)
    application = desk_application(
        store,
        take,
        figures=figures_of(engines, outbox),
        resolver=resolver,
        public_url=desk.public_url,
        oidc=_provider(desk, secrets),
        talks=TalkTracks(catalogue_of(config.remedies)),
        timezone=config.detection.timezone,
    )
    return Server(application, *desk.listen, before_stop=application.state.streams.close)


def _provider(desk: Desk, secrets: Secrets) -> oidc.Settings | None:
    given = desk.oidc
    if given is None or secrets.desk_client is None:
        return None
    roles = {"csr": given.roles.csr, "supervisor": given.roles.supervisor, "admin": given.roles.admin}
    return oidc.Settings(
        given.issuer, given.client_id, secrets.desk_client, given.claim, cast("dict[Role, tuple[str, ...]]", roles)
    )


def outcomes_of(spool: Spool | None, records: Resubmitted | None, engines: Iterable[RiskEngine]) -> TakeOutcome:
    """Return what makes outcomes events of the input, durably.

    Detection's time is that of its events. Where these are behind the wall clock (a backlog, a replay, a
    demonstration), an outcome at the wall clock's time would take detection's time past all that is still to come: so
    it happened at the newest event.

    Args:
        spool: of an input that takes events by HTTP; there they keep their place among the others.
        records: what is read beside any other input; None: nothing is, and outcomes are refused.
        engines: those of the deployment.
    """
    lock = threading.Lock()

    def take(outcome: Outcome) -> None:
        clock_ms = max((one.clock_ms for one in list(engines)), default=-1)
        if 0 <= clock_ms < outcome.at_ms:
            outcome = structs.replace(outcome, at_ms=clock_ms)
        event = {name: value for name, value in to_builtins(outcome).items() if value is not None}
        line = orjson.dumps(event)
        if spool is not None:
            spool.append(line + b"\n")
        elif records is not None:
            with lock:
                records.publish([line])
        elif outcome.result not in HANDLED:
            raise StateError("outcomes: must come by Kafka where each of its partitions has a state of its own")

    return take


def figures_of(engines: Iterable[RiskEngine], outbox: Outbox) -> ReadFigures:
    """Return what tells of a deployment. It looks while detection goes on: figures may be of neighbouring moments."""

    def read() -> Figures:
        known = list(engines)
        memories = [one.memory for one in known]
        outcomes = ("applied", "duplicate", "late", "dead_lettered")
        suspects = [suspect for one in memories for suspect in _suspects(one.elements)]
        suspects.sort(key=lambda one: (-one.excess, one.element_kind, one.element_id))
        return Figures(
            clock_ms=max([-1, *(one.clock_ms for one in known)]),
            customers=sum(len(one.roster) for one in memories),
            records={name: sum(getattr(one.counts, name) for one in known) for name in outcomes},
            told_today=sum(one.advisor.told_today for one in memories),
            alerts_per_day_max=sum(one.settings.alerts_per_day_max for one in memories),
            deferred=sum(one.advisor.deferred_count for one in memories),
            taken_over=sum(one.casebook.taken_over_count for one in memories),
            pending={name: one.pending for name, one in outbox.stats().outputs.items()},
            suspects=suspects[:SUSPECTS_MAX],
            model=_model([one.advisor.model.report() for one in memories]),
            incidents=[
                one.incidents.report(incident, None)
                for one in memories
                for incident in list(one.incidents.open.values())
                if not incident.known
            ],
        )

    return read


def _suspects(elements: Elements) -> list[Suspect]:
    """List the elements whose evidence is up."""
    array = elements.network.elements[: len(elements)].copy()
    found = []
    for serial in np.flatnonzero((array["since_ms"] >= 0) & (array["attempts"] > 0)).tolist():
        one = array[serial]
        for channel in range(E_CHANNELS):
            days, usual = float(element_total(one, channel)), elements.p0(serial, channel)
            bad, calls = elements.counts(serial, channel)
            is_known = one["incident"] > 0 and one["channel"] == channel
            if (days >= SUSPECT_DAYS or is_known) and bad > usual * calls:
                kind, name = elements.names[serial]
                found.append(Suspect(kind, name, calls, bad, usual, days, bool(is_known)))
    return found


def _model(reports: list[ModelReport]) -> Model:
    """Tell of the model that has learnt most: partitions that are kept apart learn apart."""
    report = max(reports, key=lambda one: one.labels, default=None)
    if report is None:
        return Model(0, 0, 0.0, None, None, None, [])
    measures = report.served.measures
    bins = [
        Bin(one.predicted, one.observed, one.weight)
        for one in measures.bins
        if one.predicted is not None and one.observed is not None
    ]
    return Model(
        labels=report.labels,
        left=report.left,
        base_rate=report.base_rate,
        brier=measures.brier,
        brier_base=measures.brier_base,
        calibration_error=measures.calibration_error,
        bins=bins,
    )
