"""PyFlink, thread mode (`python.execution-mode: thread`): orjson, key_by, a keyed process function with pickled state.

Thread mode runs Python inside the JVM; process mode, the default, is slower. The state is pickled at every call: river
objects beside it would be twice as fast and lost at every restart. A timer at the end of all time gives out the final
states. The job's submission is not timed: the keyed function says when it was opened.

PyFlink's pins hold river at 0.23, whose exponentially weighted statistics begin in another way than later ones; river
0.24.2 works with it and must be installed with `--no-deps`.
"""
# ruff: noqa: PLC0415  imported where its absence can be said in one sentence

import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bench.maven import NotHereError
from bench.peers.job import Clock, Found, Reading, Work, main, peak_mb

END_MS = 2**63 - 1


def prepare(events: Path) -> Work:
    """Start the JVM and build the job."""
    if shutil.which("java") is None:
        raise NotHereError("PyFlink needs java on the PATH")
    # Thread mode asks the `python` of the PATH where its shared library is.
    os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    import orjson
    from pyflink.common import Configuration, Types, WatermarkStrategy  # type: ignore[import-not-found]  # elsewhere
    from pyflink.datastream import (  # type: ignore[import-not-found]  # in an environment of its own
        KeyedProcessFunction,
        StreamExecutionEnvironment,
    )
    from pyflink.datastream.connectors.file_system import (  # type: ignore[import-not-found]  # the same
        FileSource,
        StreamFormat,
    )
    from pyflink.datastream.state import ValueStateDescriptor  # type: ignore[import-not-found]  # the same
    from pyflink.java_gateway import get_gateway  # type: ignore[import-not-found]  # the same

    from bench.peers.river_detectors import Detectors

    class Detect(KeyedProcessFunction):  # type: ignore[misc]  # it has no types here
        """The keyed step."""

        def open(self, runtime_context: Any) -> None:
            self.begun = tuple(Reading.now())
            self.state = runtime_context.get_state(ValueStateDescriptor("detectors", Types.PICKLED_BYTE_ARRAY()))

        def process_element(self, value: dict[str, Any], ctx: Any) -> Iterator[Any]:
            detectors = self.state.value()
            if detectors is None:
                detectors = Detectors()
                ctx.timer_service().register_event_time_timer(END_MS)
            fires = detectors.see(value)
            self.state.update(detectors)
            if fires:
                yield ("F", value["customer_id"], value["call_id"])

        def on_timer(self, timestamp: int, ctx: Any) -> Iterator[Any]:  # noqa: ARG002  its signature
            # Read in the JVM, where the work is done; Linux has one wall clock of this sort for all processes.
            yield ("S", ctx.get_current_key(), (self.begun, tuple(Reading.now()), self.state.value().values()))

    settings = Configuration()
    settings.set_string("python.execution-mode", "thread")
    settings.set_string("python.executable", sys.executable)
    env = StreamExecutionEnvironment.get_execution_environment(settings)
    env.set_parallelism(1)
    source = FileSource.for_record_stream_format(StreamFormat.text_line_format(), str(events)).build()
    lines = env.from_source(source, WatermarkStrategy.no_watermarks(), "lines")
    calls = lines.map(orjson.loads, output_type=Types.PICKLED_BYTE_ARRAY())
    results = calls.key_by(lambda call: call["customer_id"], key_type=Types.STRING()).process(Detect())

    def work(clock: Clock) -> Found:
        found = Found()
        with events.open("rb") as lines:
            found.events = sum(1 for _ in lines)
        for kind, customer, value in results.execute_and_collect("small"):
            if kind == "F":
                found.firings.append((customer, value))
            else:
                begun, ended, found.states[customer] = value
                clock.set(Reading(*begun), Reading(*ended))
        jvm_pid = get_gateway().jvm.java.lang.ProcessHandle.current().pid()
        found.extra["rss_mb"] = peak_mb(jvm_pid)
        return found

    return work


if __name__ == "__main__":
    main("pyflink", prepare, "apache-flink")
