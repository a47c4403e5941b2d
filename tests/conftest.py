"""What all tests share."""

from hypothesis import settings

# Compiled code is compiled in the first example; a deadline would measure the compiler and the machine.
settings.register_profile("stayline", deadline=None)
settings.load_profile("stayline")

pytest_plugins = ["desk_kit", "kafka_kit", "shards_kit"]
"""Their fixtures: a broker and a database server take seconds to come up, and one of each is enough."""
