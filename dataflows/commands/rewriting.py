"""Records written to their topic again: to the partition that each came from, where its customers are known."""

import contextlib
from collections.abc import Mapping, Sequence

from confluent_kafka import KafkaError, KafkaException, Producer

from dataflows.commands.again import message_of, open_consumer, origin_of
from dataflows.deadletters import record_of
from dataflows.inputs.kafka_client import CONNECT_S, error_of
from schemas.deadletters import DeadLetter
from schemas.errors import DeliveryError


def rewrite(reached: Mapping[str, str], letters: Sequence[DeadLetter], *, whole: bool) -> None:
    """Write the records of dead letters to their topics again.

    Args:
        reached: how the brokers are reached (see `kafka_client.connection`).
        letters: of a Kafka input.
        whole: the messages that they came in, as they stand on the topic: of those the letters keep an outline alone.

    Raises:
        DeliveryError: the brokers have not confirmed them all: some may have been written.
    """
    errors: list[str] = []

    def ended(error: KafkaError | None, _: object) -> None:
        if error is not None:
            errors.append(error.str())

    try:
        producer = Producer(dict(reached) | {"enable.idempotence": True, "message.timeout.ms": int(CONNECT_S * 1e3)})
        for at, record in _records(reached, letters, whole=whole).items():
            origin = origin_of(at[0])
            if origin is None or record is None:
                raise DeliveryError(f"{at[0]}: must be the place of a message on its topic, is not (any more)")
            producer.produce(origin[0], record, partition=origin[1], on_delivery=ended)
            producer.poll(0)
        left = producer.flush(2 * CONNECT_S)
    except (KafkaException, BufferError) as error:
        found = error_of(error).str() if isinstance(error, KafkaException) else "the client's queue is full"
        raise DeliveryError(f"dead letters: must be taken by the brokers, were not: {found}") from None
    if errors or left:
        raise DeliveryError(f"dead letters: must all be confirmed, {len(errors) + left} were not: {[*errors, ''][0]}")


def _records(
    reached: Mapping[str, str], letters: Sequence[DeadLetter], *, whole: bool
) -> dict[tuple[str, str], bytes | None]:
    """Return what is to be written, by its place, and of several records of one message by the record as well."""
    if not whole:
        return {(letter.at, letter.record_b64): record_of(letter) for letter in letters}
    with contextlib.closing(open_consumer(reached)) as consumer:
        found = {at: message_of(consumer, at) for at in sorted({letter.at for letter in letters})}
        return {(at, ""): None if message is None else message.value() for at, message in found.items()}
