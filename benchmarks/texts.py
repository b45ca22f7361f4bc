"""The text of the rows: the same for all engines, and nothing that a cache could leave out."""

import hashlib


def make_text(number: int) -> str:
    """1,000 hexadecimal digits that depend on the row; half of that is the least they can be packed into."""
    return hashlib.shake_128(b"%d" % number).hexdigest(500)
