"""The error tree, drawn once.

    StaylineError
    ├── ConfigError      the configuration or an argument does not hold; every problem is listed (exit 2)
    ├── InputError       an input as a whole cannot be read: no such file, not the format it claims (exit 1)
    ├── StateError       state on disk is damaged, newer, or belongs to somebody else (exit 1)
    └── DeliveryError    an output cannot take what it is given, and waiting will not help (exit 1)

A single bad record is no error: it becomes a `schemas.deadletters.DeadLetter`, and its neighbours go on.
"""


class StaylineError(Exception):
    """What the program reports in one line, without a traceback."""


class ConfigError(StaylineError):
    """The configuration or an argument does not hold.

    Args:
        problems: one sentence each: the key, what must hold, what was found.
    """

    def __init__(self, problems: list[str]) -> None:
        super().__init__("; ".join(problems))
        self.problems = problems


class InputError(StaylineError):
    """An input as a whole cannot be read."""


class StateError(StaylineError):
    """State on disk is damaged, newer than this program, or belongs to another deployment."""


class DeliveryError(StaylineError):
    """An output cannot take what it is given, and waiting will not help."""
