"""What `Distiset.save_to_disk` leaves of a config, looked through before `datasets` reads it.

Such a directory may come from a stranger, and `datasets` goes wherever its JSON says, and makes each type that its Arrow
files name.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

from distilabel_dagster.base.json_data import load_json
from distilabel_dagster.cache.extension_types import check_schema_message
from distilabel_dagster.cache.filesystem import CacheFileSystem
from distilabel_dagster.cache.flatbuffers import (
    MESSAGE_BODY_LENGTH,
    MESSAGE_HEADER,
    MESSAGE_KIND,
    read_message,
)

DATASET_DICT_FILE: Final = "dataset_dict.json"
_STATE_FILE: Final = "state.json"
_INFO_FILE: Final = "dataset_info.json"
_SPLIT = re.compile(r"\w+(\.\w+)*")
_DATA_FILE = re.compile(r"[\w-][\w.-]*\.arrow")
_FORMATS: Final = (None, "python", "arrow", "numpy", "pandas", "polars", "torch", "tensorflow", "jax")
_SCHEMA_KIND, _DICTIONARY_KIND, _ROWS_KIND = 1, 2, 3
_COMPRESSION: Final = 3
_DICTIONARY_ROWS: Final = 1
_MOST_MESSAGE_BYTES: Final = 64 * 1024 * 1024


def check_saved_config(fs: CacheFileSystem, config: str) -> None:
    """Make sure that `datasets` can be given the directory of a config.

    Args:
        fs: the directory with all configs.
        config: the config's directory in it.

    Raises:
        ValueError: a name in it leads elsewhere, or a file isn't what `datasets` writes; the message says which.
        CacheError: a file can't be read, or is a link that leads out.
    """
    splits = _read_json(fs, f"{config}/{DATASET_DICT_FILE}").get("splits")
    if not isinstance(splits, list) or not all(_is_name(split, _SPLIT) for split in splits):
        raise ValueError(f"{fs.full_path(f'{config}/{DATASET_DICT_FILE}')} names no splits")
    for split in splits:
        directory = f"{config}/{split}"
        _read_json(fs, f"{directory}/{_INFO_FILE}")
        state = _read_json(fs, f"{directory}/{_STATE_FILE}")
        for name in _data_files(state, fs.full_path(f"{directory}/{_STATE_FILE}")):
            _check_arrow_file(fs, f"{directory}/{name}")


def _is_name(value: Any, form: "re.Pattern[str]") -> bool:
    return isinstance(value, str) and form.fullmatch(value) is not None


def _read_json(fs: CacheFileSystem, path: str) -> Mapping[str, Any]:
    try:
        content = load_json(fs.read_bytes(path))
    except ValueError as error:
        raise ValueError(f"{fs.full_path(path)} is no JSON that `datasets` writes: {error}") from error
    if not isinstance(content, dict):
        raise ValueError(f"{fs.full_path(path)} holds a {type(content).__name__}, expected an object")  # noqa: TRY004  (the file is wrong, not the call)
    return content


def _data_files(state: Mapping[str, Any], where: str) -> list[str]:
    listed = state.get("_data_files")
    if not isinstance(listed, list):
        raise ValueError(f"{where} lists no `_data_files`")  # noqa: TRY004  (the file is wrong, not the call)
    names = [each.get("filename") if isinstance(each, dict) else None for each in listed]
    if not all(_is_name(name, _DATA_FILE) for name in names):
        raise ValueError(f"{where} lists a data file that isn't one of its own directory")
    if state.get("_format_type") not in _FORMATS or state.get("_format_kwargs"):
        raise ValueError(f"{where} asks for a format that isn't one of `datasets` itself")
    return [str(name) for name in names]


def _check_arrow_file(fs: CacheFileSystem, path: str) -> None:
    """Go through the messages of an Arrow stream: no type that runs code, and nothing that has to be unpacked."""
    try:
        for message in _iter_messages(fs, path):
            _check_message(message)
    except ValueError as error:
        raise ValueError(f"{fs.full_path(path)} can't be read: {str(error) or 'it is damaged'}") from error


def _check_message(message: bytes) -> None:
    root = read_message(message)
    kind, header = root.number(MESSAGE_KIND, "<B"), root.table(MESSAGE_HEADER)
    if kind == _SCHEMA_KIND:
        check_schema_message(message)
    rows = header.table(_DICTIONARY_ROWS) if header and kind == _DICTIONARY_KIND else header
    if kind in (_DICTIONARY_KIND, _ROWS_KIND) and rows and rows.table(_COMPRESSION):
        raise ValueError("its rows are compressed, which `datasets` never does")


def _iter_messages(fs: CacheFileSystem, path: str) -> Iterator[bytes]:
    with fs.open_input(path) as file:
        place = 0
        while True:
            file.seek(place)
            start = file.read(8)
            is_new_form = start[:4] == b"\xff" * 4
            length = int.from_bytes(start[4:8] if is_new_form else start[:4], "little")
            if not length:
                return
            if length > _MOST_MESSAGE_BYTES:
                raise ValueError("a message in it claims to be absurdly long")
            size = length + (8 if is_new_form else 4)
            file.seek(place)
            message: bytes = file.read(size)
            if len(message) < size:
                raise ValueError("it's cut off")
            yield message
            body = read_message(message).number(MESSAGE_BODY_LENGTH, "<q")
            if body < 0:
                raise ValueError("it's damaged")
            place += size + body
