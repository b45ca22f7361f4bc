"""Which files a path, a glob, a directory or a list of them names, and what identifies their content."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any, Final, cast

from fsspec.core import url_to_fs

FILE_TYPES: Final = {
    "csv": "csv",
    "tsv": "csv",
    "json": "json",
    "jsonl": "json",
    "ndjson": "json",
    "parquet": "parquet",
    "pq": "parquet",
}
"""Extension -> how the file is read."""

COMPRESSIONS: Final = {"gz": "gzip", "bz2": "bz2", "xz": "xz", "zst": "zstd"}
"""Last extension -> how a text file is compressed."""

_SPLITS: Final = {
    "train": "train",
    "test": "test",
    "eval": "test",
    "validation": "validation",
    "valid": "validation",
    "val": "validation",
    "dev": "validation",
}
_CONTENT_TAGS: Final = ("ETag", "etag", "md5Hash", "content_md5", "checksum")
_MODIFIED: Final = ("mtime", "LastModified", "last_modified", "updated", "modified", "created")
_MAGIC = re.compile(r"[*?\[]")


@dataclass(frozen=True, slots=True)
class DataFile:
    """One file to read rows from.

    Attributes:
        fs: the fsspec file system that has it.
        path: its path there.
        url: its path or URL, for messages.
        filetype: "csv", "json" or "parquet"; None where the extension says none of them.
        delimiter: what parts the fields of a csv file.
        compression: "gzip", "bz2", "xz" or "zstd"; None where it's plain.
        version: its size and its ETag or time of change: equal as long as the content is.
    """

    fs: Any
    path: str
    url: str
    filetype: str | None
    delimiter: str
    compression: str | None
    version: tuple[Any, ...]

    @property
    def is_local(self) -> bool:
        """Whether it's a file of this machine."""
        return "file" in self.fs.protocol


def find_files(
    data_files: Any, filetype: str | None, split: str, storage_options: Mapping[str, Any] | None
) -> list[DataFile]:
    """Find the files, in the order they're read in: as listed, those of a directory or glob by their path.

    Args:
        data_files: path or URL of a file or directory, a glob, or a list of those.
        filetype: "csv", "json" or "parquet"; None to go by the extensions.
        split: of a directory's files, those of this split; other files are all "train".
        storage_options: passed to fsspec.

    Raises:
        ValueError: nothing is found, files are of several types or of none, or one is named twice.
        OSError: the file system can't be reached.
    """
    named = data_files if isinstance(data_files, list | tuple) else [data_files]
    files: list[DataFile] = []
    for each in named:
        files += _find(str(each), filetype, split, dict(storage_options or {}))
    if not files:
        raise ValueError("no files are given: the list is empty. Name at least one file.")
    _check_named_once(files)
    return _with_type(files, filetype)


def _find(text: str, filetype: str | None, split: str, storage_options: dict[str, Any]) -> list[DataFile]:
    try:
        fs, path = url_to_fs(text, **storage_options)
    except (ValueError, ImportError) as error:
        raise ValueError(f"`{text}` can't be reached: {error}.") from error
    if _MAGIC.search(text) and not fs.exists(path):
        found = _glob(fs, path)
        if not found:
            raise ValueError(f"no file matches `{text}`. Check the pattern; `**` goes into directories.")
    elif fs.isdir(path):
        return _find_in_directory(fs, path, text, filetype, split)
    elif fs.exists(path):
        found = {path: fs.info(path)}
    else:
        raise ValueError(
            f"there is no file or directory `{text}`. Check the path; it's relative to {_base(fs)}."
        )
    if split != "train":
        raise ValueError(
            f"`{text}` names files, which are all split `train`, but `split` is `{split}`. Leave `split` out, or give "
            "the directory that holds the splits."
        )
    return [_data_file(fs, name, found[name]) for name in sorted(found)]


def _glob(fs: Any, pattern: str) -> dict[str, Any]:
    """Match files as a shell does: a name that begins with a dot only where the pattern says so."""
    fixed = pattern[: cast("re.Match[str]", _MAGIC.search(pattern)).start()].rpartition("/")[0]
    hidden = any(part.startswith(".") for part in pattern[len(fixed) :].split("/"))
    return {
        name: info
        for name, info in fs.glob(pattern, detail=True).items()
        if info["type"] == "file" and (hidden or "/." not in name[len(fixed) :])
    }


def _base(fs: Any) -> str:
    return "the working directory" if "file" in fs.protocol else "the root of the file system"


def _find_in_directory(fs: Any, path: str, text: str, filetype: str | None, split: str) -> list[DataFile]:
    """Take the data files below a directory that belong to a split; hidden ones (`.x`, `_x`) and others aren't data."""
    root = path.rstrip("/")
    found: dict[str, DataFile] = {}
    for name, info in fs.find(path, detail=True).items():
        inside = name[len(root) :].strip("/")
        if not any(part.startswith((".", "_")) for part in inside.split("/")):
            found[inside] = _data_file(fs, name, info)
    typed = {inside: file for inside, file in found.items() if file.filetype == (filetype or file.filetype)}
    chosen = {inside: file for inside, file in typed.items() if file.filetype} or (found if filetype else {})
    if not chosen:
        kinds = f"`.{filetype}`" if filetype else ", ".join(f"`.{extension}`" for extension in FILE_TYPES)
        raise ValueError(
            f"the directory `{text}` has no data files ({kinds}). Name the files, or pass `filetype`."
        )
    splits = {inside: _split_of(inside) for inside in sorted(chosen)}
    files = [chosen[inside] for inside, each in splits.items() if each == split]
    if not files:
        known = ", ".join(f"`{each}`" for each in sorted(set(splits.values())))
        raise ValueError(f"the directory `{text}` has no files of the split `{split}`; it has {known}.")
    return files


def _split_of(inside: str) -> str:
    """The split that a file's directory or name says: `test/1.csv`, `test-00000-of-00002.parquet`, `test.jsonl`."""
    for part in inside.split("/"):
        word = re.split(r"[-_.0-9]", part, maxsplit=1)[0].lower()
        if word in _SPLITS:
            return _SPLITS[word]
    return "train"


def _data_file(fs: Any, path: str, info: Mapping[str, Any]) -> DataFile:
    extensions = [extension.lstrip(".").lower() for extension in PurePosixPath(path).suffixes]
    compression = COMPRESSIONS.get(extensions[-1]) if extensions else None
    kind = extensions[-2:-1] if compression else extensions[-1:]
    return DataFile(
        fs=fs,
        path=path,
        url=str(fs.unstrip_protocol(path)).removeprefix("file://").removeprefix("local://"),
        filetype=FILE_TYPES.get(kind[0]) if kind else None,
        delimiter="\t" if kind == ["tsv"] else ",",
        compression=compression,
        version=version_of(info),
    )


def version_of(info: Mapping[str, Any]) -> tuple[Any, ...]:
    """Give a file's size, and its ETag or time of change, of what fsspec tells of it."""
    return info.get("size"), next(
        (info[name] for name in (*_CONTENT_TAGS, *_MODIFIED) if info.get(name)), None
    )


def _check_named_once(files: Iterable[DataFile]) -> None:
    seen: set[str] = set()
    for file in files:
        if file.url in seen:
            raise ValueError(
                f"`{file.url}` is named twice, so its rows would be doubled. Name each file once."
            )
        seen.add(file.url)


def _with_type(files: list[DataFile], filetype: str | None) -> list[DataFile]:
    if filetype is None:
        unknown = next((file for file in files if file.filetype is None), None)
        if unknown is not None:
            raise ValueError(
                f"the extension of `{unknown.url}` doesn't say what it is. Pass `filetype`: 'csv', 'json' (JSON lines "
                "too) or 'parquet'."
            )
        kinds = {str(file.filetype): file.url for file in reversed(files)}
        if len(kinds) > 1:
            told = ", ".join(f"`{url}` is {kind}" for kind, url in sorted(kinds.items()))
            raise ValueError(f"the files are of several types: {told}. Give each type a step of its own.")
    packed = next((f for f in files if (filetype or f.filetype) == "parquet" and f.compression), None)
    if packed is not None:
        raise ValueError(
            f"`{packed.url}`: a compressed parquet file can't be read in parts. Unpack it first."
        )
    return files
