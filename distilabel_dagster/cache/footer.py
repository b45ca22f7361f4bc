"""The footer of a part: what the cache says of each batch in it, as JSON in the Parquet metadata."""

import base64
import json
import reprlib
from dataclasses import replace
from typing import Any, Final, TypedDict

import pyarrow as pa

from distilabel_dagster.base.json_data import load_json
from distilabel_dagster.batch import DIGEST_BYTES, BatchRecord, Source
from distilabel_dagster.cache.extension_types import check_schema_message

FOOTER_KEY = b"distilabel_dagster"
FOOTER_FORMAT = 2
_READ_FORMATS: Final = (1, FOOTER_FORMAT)
CHECKSUMS_BEGIN = b'{"checksums":"'
"""How a footer begins. What follows is 16 digits, zeros until `part_file` knows them."""
_ABSURD = 2**63
_MOST_BYTES: Final = 100 * 1000 * 1000
"""As much text as Arrow reads in a footer."""


class BatchEntry(TypedDict, total=False):
    """One batch in a part's footer; fields with their default are left out."""

    seq_no: int
    size: int
    last_batch: bool
    created_from: dict[str, list[list[int]]]
    batch_routed_to: list[str]
    revision: int
    errors: dict[str, str]
    requests: str
    occurrences: dict[str, int]
    schema: int


class Footer(TypedDict):
    """The footer of a part: which step's, which batches it holds in order, and schemas that some had by themselves."""

    checksums: str
    format: int
    step_name: str
    signature: str
    batches: list[BatchEntry]
    schemas: list[str]


def encode_footer(step_name: str, signature: str, records: list[BatchRecord]) -> bytes:
    """Write the footer of the part that holds `records`, in order."""
    schemas: list[pa.Schema] = []
    entries = []
    for record in records:
        entry = _encode_entry(record)
        if record.schema is not None:
            known = next((i for i, schema in enumerate(schemas) if schema.equals(record.schema)), None)
            if known is None:
                known = len(schemas)
                schemas.append(record.schema)
            entry["schema"] = known
        entries.append(entry)
    footer: Footer = {
        "checksums": "0" * 16,
        "format": FOOTER_FORMAT,
        "step_name": step_name,
        "signature": signature,
        "batches": entries,
        "schemas": [schema.serialize().to_pybytes().hex() for schema in schemas],
    }
    return json.dumps(footer, separators=(",", ":")).encode()


def _encode_entry(record: BatchRecord) -> BatchEntry:
    entry: BatchEntry = {"seq_no": record.seq_no, "size": record.size}
    if record.last_batch:
        entry["last_batch"] = True
    if record.created_from:
        entry["created_from"] = {
            name: [[s.seq_no, s.size, s.rows_used, s.revision] for s in sources]
            for name, sources in record.created_from.items()
        }
    if record.batch_routed_to:
        entry["batch_routed_to"] = list(record.batch_routed_to)
    if record.revision:
        entry["revision"] = record.revision
    if record.errors:
        entry["errors"] = {str(index): message for index, message in record.errors.items()}
    if record.requests:
        entry["requests"] = base64.b64encode(record.requests).decode("ascii")
    if record.occurrences:
        entry["occurrences"] = {str(index): count for index, count in record.occurrences.items()}
    return entry


def decode_footer(content: bytes, step_name: str, signature: str, part: int) -> list[BatchRecord]:
    """Read the records of a part's footer.

    Raises:
        ValueError: it's no footer of that step, in a form that this version knows; the message says what's wrong.
    """
    try:
        # What went wrong with a row is kept as it was said, halves of characters included.
        footer: Any = load_json(content, most_bytes=_MOST_BYTES, allows_surrogates=True)
    except ValueError as error:
        raise ValueError(f"its footer can't be read: {error}") from error
    if not isinstance(footer, dict) or footer.get("format") not in _READ_FORMATS:
        found = footer.get("format") if isinstance(footer, dict) else footer
        raise ValueError(f"its footer has the format {reprlib.repr(found)}, expected {FOOTER_FORMAT}")
    if (footer.get("step_name"), footer.get("signature")) != (step_name, signature):
        raise ValueError(
            f"it belongs to step {reprlib.repr(footer.get('step_name'))} with signature "
            f"{reprlib.repr(footer.get('signature'))}"
        )
    try:
        schemas = [_decode_schema(schema) for schema in footer["schemas"]]
        records, row_offset = [], 0
        for entry in footer["batches"]:
            record = _decode_entry(entry, schemas)
            records.append(replace(record, part=part, row_offset=row_offset))
            row_offset += record.size
    except (KeyError, TypeError, IndexError, AttributeError, pa.ArrowException) as error:
        raise ValueError(f"its footer is damaged ({type(error).__name__}: {error})") from error
    return records


def _decode_schema(text: str) -> pa.Schema:
    message = bytes.fromhex(text)
    check_schema_message(message)
    try:
        return pa.ipc.read_schema(pa.py_buffer(message))
    except (pa.ArrowException, OSError) as error:
        raise ValueError(f"a schema in its footer is damaged ({error})") from error


def _decode_entry(entry: Any, schemas: list[pa.Schema]) -> BatchRecord:
    created_from = {
        str(name): [_decode_source(source) for source in sources]
        for name, sources in entry.get("created_from", {}).items()
    }
    size = _count(entry["size"])
    errors = {int(index): str(message) for index, message in entry.get("errors", {}).items()}
    if any(not 0 <= index < size for index in errors):
        raise ValueError("its footer tells of failed rows that a batch doesn't have")
    requests = base64.b64decode(entry.get("requests", ""), validate=True)
    occurrences = {int(index): _count(count) for index, count in entry.get("occurrences", {}).items()}
    if len(requests) % DIGEST_BYTES or any(
        not 0 <= index < len(requests) // DIGEST_BYTES for index in occurrences
    ):
        raise ValueError("its footer tells of requests that a batch didn't make")
    return BatchRecord(
        seq_no=_count(entry["seq_no"]),
        size=size,
        last_batch=bool(entry.get("last_batch", False)),
        created_from=created_from or None,
        batch_routed_to=tuple(str(name) for name in entry.get("batch_routed_to", ())),
        revision=_count(entry.get("revision", 0)),
        errors=errors or None,
        requests=requests,
        occurrences=occurrences or None,
        schema=schemas[_count(entry["schema"])] if "schema" in entry else None,
    )


def _decode_source(values: Any) -> Source:
    source = Source(*(_count(value) for value in values))
    if source.rows_used > source.size:
        raise ValueError("its footer tells of more rows taken than there were")
    return source


def _count(value: Any) -> int:
    if type(value) is not int or not 0 <= value < _ABSURD:
        raise ValueError(f"its footer holds {reprlib.repr(value)} where a count belongs")
    return value
