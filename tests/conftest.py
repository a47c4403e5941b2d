"""What all tests share."""

from hypothesis import settings

# Compiled code is compiled in the first example; a deadline would measure the compiler and the machine.
settings.register_profile("stayline", deadline=None)
settings.load_profile("stayline")

pytest_plugins = ["kafka_kit", "shards_kit"]
"""Their fixtures: a broker takes seconds to come up, and one is enough."""
