"""Distiset: what a pipeline gives, a `DatasetDict` per leaf step."""

import contextlib
import logging
import re
import textwrap
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, cast

import fsspec
from fsspec.core import url_to_fs
from typing_extensions import Self

from distilabel_dagster.cache import layout
from distilabel_dagster.cache.confinement import check_relative
from distilabel_dagster.cache.filesystem import CacheFileSystem
from distilabel_dagster.distiset import card, hub
from distilabel_dagster.distiset.features import refuse_files_elsewhere
from distilabel_dagster.distiset.saved import DATASET_DICT_FILE, check_saved_config
from distilabel_dagster.errors import DistisetError

if TYPE_CHECKING:
    from datasets import DatasetDict

DEFAULT_CONFIG: Final = "default"
CONFIGS_DIR: Final = "distiset_configs"
# What files and `datasets` raise, of directories that aren't what `datasets` writes too.
_FAILURES: Final = (
    OSError,
    ValueError,
    TypeError,
    LookupError,
    AttributeError,
    NotImplementedError,
    RecursionError,
)
_CONFIG_NAME = re.compile(r"[\w-][\w.-]*")

_logger = logging.getLogger(__name__)


class Distiset(dict[str, "DatasetDict"]):
    """Datasets by config; a config is a leaf step, with its rows as split `train`.

    With a single leaf, `distiset["default"]` gives it too, as distilabel names it; iteration shows only the leaf's
    own name. It is a plain dict otherwise: assigning to `distiset["default"]` adds a config of that name.

    Attributes:
        pipeline_path: the frozen pipeline's file: a Path, a URL where it isn't local, or None where it's not known.
        log_filename_path: the same of the pipeline's log.

    Args:
        configs: the `DatasetDict` of each config.
        pipeline_path: see above.
        log_filename_path: see above.
        storage_options: what fsspec needs to read these two files, where they aren't local.
    """

    def __init__(
        self,
        configs: "Mapping[str, DatasetDict] | None" = None,
        /,
        *,
        pipeline_path: str | Path | None = None,
        log_filename_path: str | Path | None = None,
        storage_options: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(configs or {})
        self.pipeline_path = pipeline_path
        self.log_filename_path = log_filename_path
        self._storage_options = dict(storage_options or {})

    def __missing__(self, config: str) -> "DatasetDict":
        if config == DEFAULT_CONFIG and len(self) == 1:
            return next(iter(self.values()))
        raise KeyError(f"{config!r} isn't a config of this Distiset; it has {_listed(self)}")

    def __contains__(self, config: object) -> bool:
        return super().__contains__(config) or (config == DEFAULT_CONFIG and len(self) == 1)

    def get(self, config: str, default: Any = None) -> Any:
        """Give the config as `distiset[config]` does, or `default` where there's none."""
        try:
            return self[config]
        except KeyError:
            return default

    def __repr__(self) -> str:
        configs = "\n".join(f"{config}: {dataset_dict}" for config, dataset_dict in self.items())
        return f"Distiset({{\n{textwrap.indent(configs, '    ')}\n}})"

    def train_test_split(self, train_size: float, shuffle: bool = True, seed: int | None = None) -> Self:
        """Split the rows of each config, in place, into `train` and `test`.

        Args:
            train_size: share of the rows that stay in `train`, between 0 and 1.
            shuffle: take rows at random; False takes the first ones for `train`.
            seed: makes the same rows be taken each time.

        Returns:
            This Distiset itself.

        Raises:
            DistisetError: `train_size` is no such share, or a config is split already or has too few rows. Then
                none was split.
        """
        if not 0 < train_size < 1:
            raise DistisetError(
                f"train_size must be a share between 0 and 1, for example 0.8; found {train_size!r}."
            )
        split: dict[str, DatasetDict] = {}
        for config, dataset_dict in self.items():
            if list(dataset_dict) != ["train"]:
                raise DistisetError(
                    f"Config `{config}` has the splits {_listed(dataset_dict)}, expected `train` alone: it was split "
                    "before. Make the Distiset anew to split it in another way."
                )
            try:
                split[config] = dataset_dict["train"].train_test_split(
                    train_size=train_size, shuffle=shuffle, seed=seed
                )
            except ValueError as error:
                raise DistisetError(
                    f"Config `{config}` has {dataset_dict['train'].num_rows} rows, too few for a share of {train_size}: "
                    "each split needs one at least. Choose another train_size, or take that config out."
                ) from error
        self.update(split)
        return self

    def push_to_hub(
        self,
        repo_id: str,
        private: bool = False,
        token: str | None = None,
        generate_card: bool = True,
        include_script: bool = False,
        **kwargs: Any,
    ) -> None:
        """Push each config, `pipeline.yaml`, `pipeline.log` and a dataset card to a repository of the Hugging Face Hub.

        The repository is made where there's none. A single config is pushed as `default`. Each config is a commit of
        its own, the other files are one more; pushing again after a failure replaces what was pushed before. What a
        card that is already there says in its header stays, its text is replaced.

        Args:
            repo_id: `<user or organisation>/<name>`, or `<name>` for the user whose token it is.
            private: make a new repository private; one that exists stays as it is.
            token: access token; by default that of `hf auth login`. It's never logged or part of a message.
            generate_card: write the dataset card; False leaves the text of the README.md as it is.
            include_script: push the Python script that is running, too.
            kwargs: options of `datasets.DatasetDict.push_to_hub`, such as `revision`, `max_shard_size`, `num_proc`.

        Raises:
            DistisetError: there's nothing to push, an option is unknown or can't work with several configs, or the
                Hub refused; it says which configs had been pushed.
        """
        self._check_not_empty("pushed")
        files = {
            **self._read_side_file(layout.PIPELINE_FILE, self.pipeline_path),
            **self._read_side_file(layout.LOG_FILE, self.log_filename_path),
        }
        configs = {DEFAULT_CONFIG: self[DEFAULT_CONFIG]} if len(self) == 1 else dict(self)
        hub.push(
            configs,
            repo_id,
            files,
            private=private,
            token=token,
            generate_card=generate_card,
            include_script=include_script,
            options=kwargs,
        )

    def save_to_disk(  # noqa: PLR0917 (the order is distilabel's)
        self,
        distiset_path: str | Path,
        max_shard_size: str | int | None = None,
        num_shards: int | None = None,
        num_proc: int | None = None,
        storage_options: Mapping[str, Any] | None = None,
        save_card: bool = True,
        save_pipeline_config: bool = True,
        save_pipeline_log: bool = True,
    ) -> None:
        """Write each config to `<distiset_path>/<config>/`, and the other files to `<distiset_path>/distiset_configs/`.

        Saving again replaces what was saved there before of the same configs. It isn't atomic: after a failure save
        again.

        Args:
            distiset_path: local path (`~` is expanded) or fsspec URL; made where it isn't there.
            max_shard_size: largest size of an Arrow file, such as `"500MB"`.
            num_shards: Arrow files per split, instead of `max_shard_size`.
            num_proc: worker processes that write.
            storage_options: passed to fsspec.
            save_card: write `README.md`, a dataset card.
            save_pipeline_config: write `pipeline.yaml`, where `pipeline_path` is known.
            save_pipeline_log: write `pipeline.log`, where `log_filename_path` is known.

        Raises:
            DistisetError: there's nothing to save, a config's name can't be a directory or is `distiset_configs`,
                another Distiset is there, or the place can't be written.
        """
        self._check_not_empty("saved")
        target = CacheFileSystem(distiset_path, storage_options)
        self._check_place(target)
        files: dict[str, bytes] = {}
        if save_pipeline_config:
            files |= self._read_side_file(layout.PIPELINE_FILE, self.pipeline_path)
        if save_pipeline_log:
            files |= self._read_side_file(layout.LOG_FILE, self.log_filename_path)
        if save_card:
            files[card.CARD_FILE] = card.build_card(self, files, name=target.url.rpartition("/")[2]).encode()
        for config, dataset_dict in self.items():
            with _explained(f"Config `{config}` can't be saved to {target.full_path(config)}"):
                dataset_dict.save_to_disk(
                    target.full_path(config),
                    num_proc=num_proc,
                    storage_options=dict(storage_options or {}),
                    **_shards(dataset_dict, max_shard_size, num_shards),
                )
        for name in (card.CARD_FILE, layout.PIPELINE_FILE, layout.LOG_FILE):
            if name in files:
                target.write_bytes(f"{CONFIGS_DIR}/{name}", files[name])
            else:
                target.remove(f"{CONFIGS_DIR}/{name}")

    @classmethod
    def load_from_disk(
        cls,
        distiset_path: str | Path,
        keep_in_memory: bool | None = None,
        storage_options: Mapping[str, Any] | None = None,
        download_dir: str | Path | None = None,
    ) -> Self:
        """Read what `save_to_disk` wrote; configs come in the order of their names.

        Args:
            distiset_path: local path (`~` is expanded) or fsspec URL.
            keep_in_memory: True reads the rows into memory; by default files are memory-mapped.
            storage_options: passed to fsspec.
            download_dir: where to copy the whole from a store that isn't local, to be read from there; by default
                the rows are copied to a temporary directory for as long as this process runs. Of no use for a
                local path.

        Raises:
            DistisetError: there's no Distiset, or it can't be read.
        """
        source = CacheFileSystem(distiset_path, storage_options)
        if download_dir is not None and not source.is_local:
            source, storage_options = _download(source, download_dir), None
        configs = _saved_configs(source)
        if not configs:
            raise DistisetError(
                f"{source.url} holds no Distiset: expected a directory per config, as `Distiset.save_to_disk` writes "
                f"them, found {_listed(source.list_names(''))}. Check the path."
            )
        unknown = [name for name in source.list_names("") if name not in configs and name != CONFIGS_DIR]
        if unknown:
            _logger.warning(
                "%s: left out, as it isn't a config of a Distiset: %s", source.url, _listed(unknown)
            )
        loaded = {config: _load_config(source, config, keep_in_memory, storage_options) for config in configs}
        return cls(
            loaded,
            pipeline_path=locate_beside(source, f"{CONFIGS_DIR}/{layout.PIPELINE_FILE}"),
            log_filename_path=locate_beside(source, f"{CONFIGS_DIR}/{layout.LOG_FILE}"),
            storage_options=storage_options,
        )

    def _check_not_empty(self, action: str) -> None:
        if not self:
            raise DistisetError(
                f"This Distiset has no config, so nothing can be {action}. Run the pipeline first."
            )

    def _check_place(self, target: CacheFileSystem) -> None:
        for config in self:
            if config == CONFIGS_DIR or not _CONFIG_NAME.fullmatch(config):
                raise DistisetError(
                    f"Config `{config}` can't be saved: its name becomes a directory beside `{CONFIGS_DIR}`, where the "
                    "card and the pipeline go. Rename it, to letters, digits, `_`, `-` and `.`: "
                    f'`distiset["<name>"] = distiset.pop({config!r})`.'
                )
        others = [config for config in _saved_configs(target) if config not in self]
        if others:
            raise DistisetError(
                f"{target.url} holds another Distiset, with the configs {_listed(others)}, which would be taken for part "
                "of this one. Choose another path, or remove what is there."
            )

    def _read_side_file(self, name: str, path: str | Path | None) -> dict[str, bytes]:
        if path is None:
            return {}
        try:
            return {name: CacheFileSystem(path, self._storage_options).read_bytes("")}
        except FileNotFoundError as error:
            raise DistisetError(
                f"{path}, the {name} of this Distiset, isn't there any more. Set `pipeline_path` or `log_filename_path` "
                "to where it is now, or to None to go without."
            ) from error


def locate_file(path: str | Path, storage_options: Mapping[str, Any] | None = None) -> Path | str | None:
    """Give an absolute path, or a URL where the file isn't local; None where there's no such file."""
    fs = CacheFileSystem(path, storage_options)
    if not fs.exists(""):
        return None
    return Path(fs.root) if fs.is_local else fs.url


def locate_beside(fs: CacheFileSystem, path: str) -> Path | str | None:
    """Give where a file of `fs` is, as `locate_file` does.

    Raises:
        CacheDirectoryError: it's a link that leads elsewhere, and would be read and pushed as the dataset's own.
    """
    if not fs.exists(path):
        return None
    full = fs.full_path(path)
    return Path(full) if fs.is_local else full


def _saved_configs(fs: CacheFileSystem) -> list[str]:
    return [name for name in fs.list_names("") if fs.exists(f"{name}/{DATASET_DICT_FILE}")]


def _shards(
    dataset_dict: "DatasetDict", max_shard_size: str | int | None, num_shards: int | None
) -> dict[str, Any]:
    """Options for sharding; a split without rows needs a file too, or `datasets` can't read it back."""
    if num_shards is None and any(dataset.num_rows for dataset in dataset_dict.values()):
        return {"max_shard_size": max_shard_size}
    return {"num_shards": dict.fromkeys(dataset_dict, num_shards or 1)}


def _load_config(
    source: CacheFileSystem,
    config: str,
    keep_in_memory: bool | None,
    storage_options: Mapping[str, Any] | None,
) -> "DatasetDict":
    from datasets import DatasetDict

    with _explained(f"Config `{config}` can't be read from {source.full_path(config)}"):
        check_saved_config(source, config)
        loaded = cast(
            "DatasetDict",
            DatasetDict.load_from_disk(
                source.full_path(config),
                keep_in_memory=keep_in_memory,
                storage_options=dict(storage_options or {}),
            ),
        )
        for dataset in loaded.values():
            dataset.data.table.validate(full=True)
            refuse_files_elsewhere(dataset, source.full_path(config))
    return loaded


def _download(source: CacheFileSystem, directory: str | Path) -> CacheFileSystem:
    """Copy all that is in `source`, and give the copy."""
    target = CacheFileSystem(directory)
    fs: fsspec.AbstractFileSystem
    fs, root = url_to_fs(source.url, **source.storage_options)
    with _explained(f"{source.url} can't be copied to {target.url}"):
        for file in source.list_files(""):
            check_relative(file.path)
            place = Path(target.root, file.path)
            place.parent.mkdir(parents=True, exist_ok=True)
            fs.get_file(f"{root}/{file.path}", str(place))
    return target


@contextlib.contextmanager
def _explained(failure: str) -> Iterator[None]:
    """Turn what files and `datasets` raise into this package's error."""
    try:
        yield
    except DistisetError:
        raise
    except _FAILURES as error:
        raise DistisetError(f"{failure}: {str(error).rstrip('.')}.") from error


def _listed(names: Any) -> str:
    return ", ".join(f"`{name}`" for name in names) or "nothing"
