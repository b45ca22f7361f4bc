"""One reader under Atheris, which looks for inputs that reach new code:

    python -m tests.fuzz.atheris_readers <reader> <corpus> [options of libFuzzer, such as -max_total_time=60]

It ends with an error at the first input that makes the reader raise anything but this package's errors, or reach out. The
corpus is begun with the package's own files; what Atheris finds new is added to it.
"""

import contextlib
import json
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Final

import atheris

with atheris.instrument_imports(include=["distilabel_dagster"]):
    from distilabel_dagster.base.json_data import load_json
    from distilabel_dagster.base.yaml_data import dump_yaml, load_yaml
    from distilabel_dagster.cache.extension_types import check_schema_message
    from distilabel_dagster.cache.footer import decode_footer
    from distilabel_dagster.cache.frozen_pipeline import parse_frozen
    from distilabel_dagster.distiset.card import read_header
    from distilabel_dagster.errors import DistilabelDagsterError
    from distilabel_dagster.pipeline import Pipeline

import pyarrow as pa
import yaml

from tests.fuzz import test_parts, test_pipeline_files
from tests.fuzz.watch import watched

_directory: Final = Path(tempfile.mkdtemp(prefix="distilabel-dagster-fuzz-"))


def read_yaml(content: bytes) -> None:
    """`pipeline.yaml`, as a pipeline and as what the cache reads of it."""
    with contextlib.suppress(yaml.YAMLError):
        data = load_yaml(content)
        with contextlib.suppress(ValueError):
            parse_frozen(data, test_parts.SIGNATURE)
        if isinstance(data, dict):
            with contextlib.suppress(DistilabelDagsterError):
                Pipeline.from_dict(data).validate()


def read_json(content: bytes) -> None:
    """A pipeline in JSON."""
    with contextlib.suppress(ValueError):
        data = load_json(content)
        if isinstance(data, dict):
            Pipeline.from_dict(data).validate()


def read_footer(content: bytes) -> None:
    """What a part's footer says of its batches."""
    with contextlib.suppress(ValueError):
        decode_footer(content, "work", test_parts.SIGNATURE, 1)


def read_part(content: bytes) -> None:
    """A part of ours, with the checksums that it should have."""
    test_parts.read_store(_directory, test_parts.with_checksums(content))


def read_foreign_part(content: bytes) -> None:
    """A Parquet file in the place of a leaf's part."""
    test_parts.read_foreign(_directory, content)


def read_schema(content: bytes) -> None:
    """A schema in Arrow's own form, as footers have them."""
    with contextlib.suppress(ValueError):
        check_schema_message(content)
        with contextlib.suppress(pa.ArrowException, OSError):
            pa.ipc.read_schema(pa.py_buffer(content))


def read_card(content: bytes) -> None:
    """The header of a dataset card."""
    with contextlib.suppress(ValueError):
        read_header(content.decode(errors="replace"))


def _part() -> bytes:
    return test_parts.write_store(Path(tempfile.mkdtemp(dir=_directory)))


READERS: Final[dict[str, tuple[Callable[[bytes], None], Callable[[], list[bytes]]]]] = {
    "yaml": (
        read_yaml,
        lambda: [test_pipeline_files.YAML, dump_yaml({"a": [1.5, None, {"b": True}]}).encode()],
    ),
    "json": (read_json, lambda: [test_pipeline_files.JSON]),
    "footer": (read_footer, lambda: [json.dumps(test_parts.footer_of(_part())).encode()]),
    "part": (read_part, lambda: [_part()]),
    "foreign_part": (read_foreign_part, lambda: [test_parts.foreign_file()]),
    "schema": (read_schema, lambda: [pa.Table.from_pylist(test_parts.ROWS).schema.serialize().to_pybytes()]),
    "card": (read_card, lambda: [b"---\nlicense: mit\ntags:\n- x\n---\n# A card\n"]),
}


def main() -> None:
    """Fuzz one reader."""
    name, corpus, *options = sys.argv[1:]
    read, originals = READERS[name]
    Path(corpus).mkdir(parents=True, exist_ok=True)
    for number, original in enumerate(originals()):
        (Path(corpus) / f"own-{number}").write_bytes(original)
        read(original)

    def read_watched(content: bytes) -> None:
        with watched(_directory):
            read(content)

    atheris.Setup([sys.argv[0], *options, corpus], read_watched)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
