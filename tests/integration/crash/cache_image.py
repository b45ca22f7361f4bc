"""A cache as bare pyarrow and JSON see it at one moment; nothing of the product reads it here."""

import io
import json
import re
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Final

import pyarrow.parquet as pq

Row = dict[str, Any]
_STEP_DIR: Final = re.compile(r"steps_data/(.+)_([0-9a-f]{40})/(.+)")
_SHOWN: Final = re.compile(r"([0-9a-f]{40})/data/([^/]+)/(.+)")
_PART: Final = re.compile(r"\d{5}\.parquet")


class UnreadableError(Exception):
    """A file isn't what it should be; the message names it."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A batch as the footer of its part tells of it.

    Attributes:
        seq_no: its number.
        rows: its rows, without columns that are None.
        last_batch: whether the step makes no further one.
        created_from: predecessor -> `[seq_no, size, rows used, revision]` of each batch that it was made of.
        batch_routed_to: the steps that get it; none where all do.
        revision: its revision.
        failed_rows: how many of its rows failed.
    """

    seq_no: int
    rows: list[Row]
    last_batch: bool
    created_from: dict[str, list[list[int]]]
    batch_routed_to: list[str]
    revision: int
    failed_rows: int


@dataclass(frozen=True, slots=True)
class StepImage:
    """A step's directory.

    Attributes:
        signature: what its name says.
        parts: name -> content, in order.
        others: names of files that are neither parts nor the marker.
        marker: `complete.json`, if there is one.
    """

    signature: str
    parts: dict[str, bytes]
    others: list[str]
    marker: Any


@dataclass
class CacheImage:
    """All files of a cache.

    Attributes:
        files: path -> content.
    """

    files: Mapping[str, bytes]
    _entries: dict[str, list[Entry]] = field(default_factory=dict)

    @cached_property
    def steps(self) -> dict[str, StepImage]:
        """Step -> its directory."""
        found: dict[str, StepImage] = {}
        for path, content in sorted(self.files.items()):
            match = _STEP_DIR.fullmatch(path)
            if match is None:
                continue
            step, signature, name = match.groups()
            image = found.setdefault(step, StepImage(signature, {}, [], None))
            if image.signature != signature:
                raise UnreadableError(f"step {step} has two signatures")
            if _PART.fullmatch(name):
                image.parts[name] = content
            elif name == "complete.json":
                found[step] = StepImage(signature, image.parts, image.others, _load(path, content))
            else:
                image.others.append(name)
        return found

    def shown(self, step: str) -> dict[str, bytes]:
        """What `data/<step>/` holds: name -> content."""
        found = {}
        for path, content in sorted(self.files.items()):
            match = _SHOWN.fullmatch(path)
            if match is not None and match[2] == step:
                found[match[3]] = content
        return found

    def snapshot(self) -> tuple[Any, dict[str, Any]]:
        """`batch_manager.json`, and step -> its file beside it; None and nothing where they aren't written yet."""
        manager, steps = None, {}
        for path, content in self.files.items():
            directory, _, name = path.partition("/")
            if len(directory) != 40:
                continue
            if name == "batch_manager.json":
                manager = _load(path, content)
            elif name.startswith("batch_manager_steps/") and "/." not in name:
                steps[name.removeprefix("batch_manager_steps/").removesuffix(".json")] = _load(path, content)
        return manager, steps

    def entries(self, step: str) -> list[Entry]:
        """The batches of a step, in order.

        Raises:
            UnreadableError: a part can't be read, or isn't that step's, or one before it is missing.
        """
        if step not in self._entries:
            image = self.steps.get(step)
            self._entries[step] = [] if image is None else _read_parts(step, image)
        return self._entries[step]

    def rows(self, step: str) -> list[Row]:
        """The rows of a step, in order."""
        return [row for entry in self.entries(step) for row in entry.rows]


def _load(path: str, content: bytes) -> Any:
    try:
        return json.loads(content)
    except ValueError as error:
        raise UnreadableError(f"{path} is no JSON: {content[:80]!r}") from error


def _read_parts(step: str, image: StepImage) -> list[Entry]:
    expected = [f"{number:05d}.parquet" for number in range(1, len(image.parts) + 1)]
    if list(image.parts) != expected:
        raise UnreadableError(f"step {step} has the parts {list(image.parts)}")
    return [entry for name, content in image.parts.items() for entry in read_part(step, image, name, content)]


def read_part(step: str, image: StepImage, name: str, content: bytes) -> list[Entry]:
    """The batches of one part."""
    where = f"part {name} of step {step}"
    try:
        with pq.ParquetFile(io.BytesIO(content)) as parquet:
            table, metadata = parquet.read(), parquet.metadata.metadata or {}
    except (OSError, ValueError) as error:
        raise UnreadableError(f"{where} can't be read: {error}") from error
    footer = json.loads(metadata.get(b"distilabel_dagster", b"null"))
    if footer is None or (footer["step_name"], footer["signature"]) != (step, image.signature):
        raise UnreadableError(f"{where} has the footer of another step: {str(footer)[:200]}")
    if footer["checksums"] != compute_checksums(content, footer["checksums"]):
        raise UnreadableError(f"{where} isn't what its checksums were made of")
    rows = [without_nones(row) for row in table.to_pylist()]
    if sum(batch["size"] for batch in footer["batches"]) != len(rows):
        raise UnreadableError(f"{where} has {len(rows)} rows, and its footer counts others")
    entries, at = [], 0
    for batch in footer["batches"]:
        entries.append(
            Entry(
                seq_no=batch["seq_no"],
                rows=rows[at : at + batch["size"]],
                last_batch=batch.get("last_batch", False),
                created_from=batch.get("created_from", {}),
                batch_routed_to=batch.get("batch_routed_to", []),
                revision=batch.get("revision", 0),
                failed_rows=len(batch.get("errors", {})),
            )
        )
        at += batch["size"]
    return entries


def compute_checksums(content: bytes, told: str) -> str:
    """CRC-32 of what stands before Parquet's footer, and of that footer with the digits of its own as zeros."""
    start = len(content) - int.from_bytes(content[-8:-4], "little") - 8
    body, footer = content[:start], content[start:]
    blank = footer.replace(told.encode(), told[:8].encode() + b"0" * 8, 1)
    return f"{zlib.crc32(body):08x}{zlib.crc32(blank):08x}"


def without_nones(row: Row) -> Row:
    """A row without the columns that only others of its table have."""
    return {column: value for column, value in row.items() if value is not None}
