"""What `[input]` of a configuration is once it is opened, and what an operator gives to the input again beside it."""

from collections.abc import Callable, Iterator
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import NamedTuple

from prometheus_client.registry import Collector

from dataflows import config as configuration
from dataflows import shards as sharded
from dataflows.config.settings import Config
from dataflows.flow import OpenInput, Part, Passed
from dataflows.inputs import hep
from dataflows.inputs.files import Cut, FileReader, Place
from dataflows.inputs.folder import Folder
from dataflows.inputs.http import read_converted
from dataflows.inputs.kafka import KafkaFigures, KafkaReader
from dataflows.inputs.kafka_client import connection
from dataflows.inputs.resubmitted import Resubmitted
from dataflows.inputs.spool import Spool
from schemas.formats import Format, open_format
from schemas.formats.hep import open_hep

RESUBMITTED_EVERY = timedelta(seconds=1)
"""How soon a running deployment takes what an operator resubmits."""


class Source(NamedTuple):
    """An input, opened.

    Attributes:
        open_input: what the flow reads.
        ends: it has an end.
        spool: what arrives by HTTP lies here; None for others.
        opener: opens the vendor's format of what arrives there; None: contract events.
        listener: takes packets; None for others.
        figures: what the input has to show of its own.
        passed: is told a place behind which no restart will go back.
        committed: is told a place that a checkpoint holds.
        finish: is called once the last checkpoint is taken.
        close: lets go of what the input holds.
    """

    open_input: OpenInput
    ends: bool
    spool: Spool | None = None
    opener: Callable[[], Format] | None = None
    listener: hep.Listener | None = None
    figures: Collector | None = None
    passed: Passed = lambda _: None
    committed: Passed = lambda _: None
    finish: Callable[[], None] = lambda: None
    close: Callable[[], None] = lambda: None


def source_of(config: Config, secrets: configuration.Secrets, folder: Path) -> Source:
    """Open the input.

    Raises:
        ConfigError: it cannot be.
    """
    if config.input.kind == "hep":
        return _packets(config, secrets, folder)
    opener = _opener(config, secrets)
    if config.input.kind == "http":
        spool = Spool(folder / "spool")
        give = spool.read if opener is None else partial(read_converted, spool)
        return Source(
            lambda place: give(Place() if place is None else Place(*place)),
            ends=False,
            spool=spool,
            opener=opener,
            passed=lambda place: spool.prune(Place(*place).file),
        )
    if config.input.kafka is not None and config.input.kind == "kafka" and config.input.kafka.partitions == ():
        # Nothing is read: what a process that is given up had still to deliver goes out.
        return Source(lambda _: iter(()), ends=False)
    if config.input.kafka is not None and config.input.kind == "kafka":
        reached = connection(config.input.kafka, secrets.input_password)
        group = config.input.kafka.group or f"stayline-{config.deployment.name}"
        reader = KafkaReader(config.input.kafka, reached, group, opener, sharded.parted(config))
        return Source(
            reader.read,
            ends=False,
            figures=KafkaFigures(reader),
            committed=reader.committed,
            finish=reader.finish,
            close=reader.close,
        )
    given = config.input.file

    def read(place: tuple[int, ...] | None) -> Iterator[Cut | None]:
        begin = Place() if place is None else Place(*place)
        if given.paths[0].is_dir():
            whole = Folder(given.paths[0], folder / "input-files.ndjson", follow=given.follow)
            return iter(FileReader(whole, begin, open_format=opener))
        return iter(FileReader(list(given.paths), begin, open_format=opener, follow=given.follow))

    return Source(read, ends=not given.follow)


def _opener(config: Config, secrets: configuration.Secrets) -> Callable[[], Format] | None:
    """Return what opens `input.format`; None: contract events."""
    if config.input.format == "stayline":
        return None
    follows = config.input.kind == "file" and config.input.file.follow
    whole_files = follows and config.input.file.paths[0].is_dir()
    options = configuration.format_options(config, secrets.token_key, endless=follows, whole_files=whole_files)
    return partial(open_format, config.input.format, options)


def _packets(config: Config, secrets: configuration.Secrets, folder: Path) -> Source:
    reader = open_hep(configuration.format_options(config, secrets.token_key))
    source = hep.Source(Spool(folder / "spool"), folder / "calls", reader)
    listener = hep.Listener(source.spool, *config.input.hep.listen)
    return Source(
        source.read, ends=False, listener=listener, figures=hep.Figures(listener, source), passed=source.passed
    )


def beside(records: Resubmitted, *, ends: bool) -> Part:
    """Return what an operator gives to the input again, or what the desk reports, read beside the input."""

    def read(place: tuple[int, ...] | None) -> Iterator[Cut | None]:
        return records.read(Place() if place is None else Place(*place), ends=ends)

    return Part(read, passed=lambda place: records.prune(Place(*place).file), idle=RESUBMITTED_EVERY)
