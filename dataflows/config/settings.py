"""The tables of the configuration: every key with its type, its bounds and its default.

What a key means stands here; reading a file is `dataflows.config`'s.
"""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import (
    Field,
)

from dataflows.config.business import Churn, Credits, Remedies
from dataflows.config.desk import Desk
from dataflows.config.inputs import Input
from dataflows.config.kinds import Address, File, Listen, Name, Section, Zone
from dataflows.config.outputs import Output


class Deployment(Section):
    """`[deployment]`: the name is part of every notification's `source` and of every id."""

    name: Name = "stayline"


class State(Section):
    """`[state]`: what is learnt, on disk and in memory.

    Where each partition of a topic has a state of its own, these lie in `shared_directory`, which all processes of the
    deployment may share (`directory` if it is not given); `customers_max` is then that of the whole deployment.
    """

    directory: File = Path("state")
    shared_directory: File | None = None
    customers_max: Annotated[int, Field(ge=1, le=1_000_000_000)] = 2_000_000
    idle_days: Annotated[int, Field(ge=1, le=3_650)] = 90


class Detection(Section):
    """`[detection]`: what the CSR team can call a day, and how seldom a healthy customer may be among them.

    `timezone` is that of days and hours in what is told, and of evenings and nights. `incidents` are "found", or "told"
    by `incident` events alone: of several processes one finds what all are told.
    """

    alerts_per_day_max: Annotated[int, Field(ge=1, le=1_000_000)] = 200
    false_alarm_days: Annotated[int, Field(ge=1, le=1_000_000_000)] = 10_000
    lateness_s: Annotated[int, Field(ge=0, le=604_800)] = 300
    timezone: Zone = "UTC"
    incidents: Literal["found", "told"] = "found"


class Metrics(Section):
    """`[metrics]`: Prometheus metrics; without the table there are none."""

    listen: Listen = Address("127.0.0.1", 9100)


class Telemetry(Section):
    """`[telemetry]`: what else is told of the run itself.

    Traces go where OpenTelemetry's own variables say (`OTEL_EXPORTER_OTLP_ENDPOINT`, `..._HEADERS` and the like).
    """

    traces: bool = False


class Config(Section):
    """The whole configuration."""

    deployment: Deployment = Deployment()
    input: Input = Input()
    state: State = State()
    detection: Detection = Detection()
    churn: Churn = Churn()
    remedies: Remedies = Remedies()
    credits: Credits = Credits()
    output: tuple[Output, ...] = ()
    desk: Desk | None = None
    metrics: Metrics | None = None
    telemetry: Telemetry = Telemetry()

    def placed(self, only: str | None = None) -> list[tuple[str, Output]]:
        """Return the outputs, or one by its name, each with its key: `output.0`, `output.1`..."""
        return [(f"output.{place}", one) for place, one in enumerate(self.output) if only in {None, one.name}]
