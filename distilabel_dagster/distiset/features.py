"""What `datasets` writes about columns (labels, images, …), in files that may be a stranger's."""

import json
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Final

import pyarrow as pa

from distilabel_dagster.base.json_data import load_json
from distilabel_dagster.errors import DistisetError

if TYPE_CHECKING:
    from datasets import Dataset

_KEY: Final = b"huggingface"
_PLAIN: Final = frozenset(
    {
        *("Value", "ClassLabel", "Translation", "TranslationVariableLanguages", "Json"),
        *("Array2D", "Array3D", "Array4D", "Array5D"),
    }
)
"""Features whose values are all in the table; others stand for files."""


def has_features(schema: pa.Schema) -> bool:
    """Tell whether a schema says of its columns what they are for `datasets`."""
    return _KEY in (schema.metadata or {})


def merge_features(schemas: Iterable[pa.Schema], step: str) -> dict[bytes, bytes] | None:
    """Give schema metadata with each column's first description; None where no column has one.

    Raises:
        DistisetError: a description can't be read.
    """
    merged: dict[str, Any] = {}
    for schema in schemas:
        written = (schema.metadata or {}).get(_KEY)
        if written:
            merged = {**_read_features(written, step), **merged}
    return {_KEY: json.dumps({"info": {"features": merged}}).encode()} if merged else None


def _read_features(written: bytes, step: str) -> dict[str, Any]:
    problem = "it isn't what `datasets` writes"
    try:
        features = ((load_json(written).get("info") or {}).get("features")) or {}
    except (ValueError, AttributeError) as error:
        features, problem = None, str(error) if isinstance(error, ValueError) else problem
    if not isinstance(features, dict) or not all(isinstance(each, dict | list) for each in features.values()):
        raise DistisetError(
            f"Step `{step}`: what a part says of its columns for `datasets` can't be read: {problem}. The file is "
            "damaged; make it anew, or leave the key `huggingface` out of its metadata."
        )
    return features


def refuse_files_elsewhere(dataset: "Dataset", where: str) -> None:
    """Refuse a dataset whose images, sounds or other files stand outside of it: to look at a row would open them.

    Raises:
        DistisetError: one refers to a file by a path or URL, and doesn't hold its content.
    """
    for column, feature in dataset.features.items():
        for chunk in dataset.data.column(column).chunks:
            if _refers_elsewhere(feature, chunk):
                raise DistisetError(
                    f"{where}: column `{column}` refers to files elsewhere by path, which aren't opened. Give it the files' "
                    "content, or make it a column of text."
                )


def _refers_elsewhere(feature: Any, array: pa.Array) -> bool:
    if isinstance(array, pa.ExtensionArray) or type(feature).__name__ in _PLAIN:
        return False
    if isinstance(feature, Mapping):
        fields = dict(zip((field.name for field in array.type), array.flatten(), strict=True))
        return any(_refers_elsewhere(feature[name], each) for name, each in fields.items() if name in feature)
    if pa.types.is_struct(array.type):
        fields = dict(zip((field.name for field in array.type), array.flatten(), strict=True))
        import pyarrow.compute as pc  # takes 40 ms to import, and few datasets refer to files

        content, path = fields.get("bytes"), fields.get("path")
        if content is None or path is None:
            return False
        return bool(pc.any(pc.and_(pc.is_null(content), pc.is_valid(path))).as_py())
    inner = getattr(feature, "feature", feature[0] if isinstance(feature, list) and feature else None)
    if inner is not None and hasattr(array, "values"):
        return _refers_elsewhere(inner, array.flatten())
    return bool(array.null_count < len(array))
