"""What all tests share."""

from engine_kit import batch, engine, telco
from hypothesis import settings

# Compiled code is compiled in the first example; a deadline would measure the compiler and the machine.
settings.register_profile("stayline", deadline=None)
settings.load_profile("stayline")

pytest_plugins = ["desk_kit", "kafka_kit", "shards_kit"]
"""Their fixtures: a broker and a database server take seconds to come up, and one of each is enough."""


def pytest_collection_finish(session):
    """Compile before the first test where tests start programs: the patience of none of them is meant for that.

    Killed by its test each time, a program would never come to the end of it.
    """
    if any("Program" in vars(item.module) or "Processes" in vars(item.module) for item in session.items):
        engine().apply(batch(telco(1, lambda places: places["access_node"] == "node-1")))
