"""Why a row of the table isn't met: title of the row -> a sentence or two, printed below the table."""

NOTES: dict[str, str] = {}
