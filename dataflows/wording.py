"""Numbers in sentences for people."""


def counted(number: int, noun: str, plural: str = "") -> str:
    """Write a number with what it counts: `1 record`, `2,000 records`.

    Args:
        number: how many.
        noun: what there is one of.
        plural: what there are several of; empty: the noun with an s.
    """
    return f"{number:,} {noun if number == 1 else plural or noun + 's'}"
