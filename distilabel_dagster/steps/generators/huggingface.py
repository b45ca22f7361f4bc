"""LoadDataFromHub and LoadDataFromDisk: rows of datasets of the `datasets` library."""

import json
import re
from pathlib import Path
from typing import Any, Final

from fsspec.core import url_to_fs
from pydantic import Field, PrivateAttr

from distilabel_dagster.base.columns import StepColumns
from distilabel_dagster.base.runtime_parameters import RuntimeParameter
from distilabel_dagster.errors import PipelineDefinitionError
from distilabel_dagster.steps.generators.data_files import version_of
from distilabel_dagster.steps.generators.dataset_generator import DatasetGenerator

_COMMIT = re.compile(r"[0-9a-f]{40}")
_NO_CONFIGS: Final = ("artifacts", "distiset_configs")


class LoadDataFromHub(DatasetGenerator):
    """Give the rows of a dataset on the Hugging Face Hub.

    The signature has the commit that `revision` stands for, and that very commit is loaded: when the dataset
    changes, a pipeline that is made anew has another signature. A commit is looked up once for a step. Without
    network (`HF_HUB_OFFLINE=1`) it's the one that was downloaded before, or else `revision` as it's given. A token is
    taken from where `huggingface_hub` finds it (`HF_TOKEN`), never from a field.

    Attributes:
        repo_id: the dataset, as `owner/name`.
        split: its split; slices like `train[:100]` work too.
        config: its configuration; needed where it has several.
        revision: branch, tag or commit; the main branch by default.
        streaming: whether rows are read over the network as they're used, instead of being downloaded before.

    Runtime parameters:
        - `repo_id`, `split`, `config`, `revision`, `streaming`: as above.
        - `num_examples`: how many rows to give at most; None for all.
        - `storage_options`: passed to the file system; not part of the signature.
        - `batch_size`: rows per batch.

    Output columns:
        - dynamic: the columns of the dataset. To know them, the Hub is asked when the pipeline is checked.

    Examples:
        >>> load = LoadDataFromHub(repo_id="distilabel-internal-testing/instruction-dataset-mini", split="test")
        >>> load.missing_runtime_parameters()
        []
    """

    repo_id: RuntimeParameter[str] = Field(default=None, description="The dataset, as `owner/name`.")
    split: RuntimeParameter[str] = Field(default="train", description="The split of the dataset.")
    config: RuntimeParameter[str] | None = Field(
        default=None, description="The configuration; needed where the dataset has several."
    )
    revision: RuntimeParameter[str] | None = Field(
        default=None, description="Branch, tag or commit; the main branch by default."
    )
    streaming: RuntimeParameter[bool] = Field(
        default=False, description="Whether rows are read over the network as they're used."
    )

    _commit: tuple[Any, str | None] | None = PrivateAttr(default=None)
    _columns: tuple[Any, list[str]] | None = PrivateAttr(default=None)

    @property
    def outputs(self) -> StepColumns:
        """The columns of the dataset, asked from the Hub once.

        Raises:
            PipelineDefinitionError: the Hub can't be reached, or has no such dataset.
        """
        if self.repo_id is None:
            return []
        key = (self.repo_id, self.config, self.split, self.revision)
        if self._columns is None or self._columns[0] != key:
            with self._blaming(PipelineDefinitionError, "can't find out the columns of"):
                self._columns = key, self._ask_columns()
        return list(self._columns[1])

    def data_fingerprint(self) -> str | None:
        """Give the commit that `revision` stands for; without network `revision` itself if nothing was downloaded.

        Raises:
            PipelineDefinitionError: the Hub can't be reached, or has no such dataset or revision.
        """
        if self.repo_id is None:
            return None
        key = (self.repo_id, self.revision)
        if self._commit is None or self._commit[0] != key:
            with self._blaming(PipelineDefinitionError, "can't find out the revision of"):
                self._commit = key, self._ask_commit()
        commit: str | None = self._commit[1]
        return commit

    def _ask_commit(self) -> str | None:
        from huggingface_hub import HfApi, constants, file_download

        if self.revision is not None and _COMMIT.fullmatch(self.revision):
            return self.revision
        if not constants.HF_HUB_OFFLINE:
            return str(HfApi().dataset_info(str(self.repo_id), revision=self.revision, timeout=30).sha)
        folder = file_download.repo_folder_name(repo_id=str(self.repo_id), repo_type="dataset")
        downloaded = Path(constants.HF_HUB_CACHE) / folder
        reference = downloaded / "refs" / (self.revision or "main")
        if reference.is_file():
            return reference.read_text().strip()
        commits = [path.name for path in downloaded.glob("snapshots/*")]
        return commits[0] if self.revision is None and len(commits) == 1 else self.revision

    def _ask_columns(self) -> list[str]:
        from datasets import load_dataset, load_dataset_builder

        revision = self.data_fingerprint()
        builder = load_dataset_builder(self.repo_id, self.config, revision=revision)
        splits = list(builder.info.splits or builder.config.data_files or {})
        split = re.split(r"[\[+]", self.split or "")[0]
        if splits and split not in (*splits, "all"):
            told = ", ".join(f"`{each}`" for each in splits)
            raise ValueError(f"it has no split `{split}`. Pass `split`, one of: {told}.")
        if builder.info.features:
            return list(builder.info.features)
        rows = load_dataset(self.repo_id, self.config, split=self.split, revision=revision, streaming=True)
        return list(next(iter(rows), {}))

    def _load_dataset(self) -> Any:
        from datasets import load_dataset

        if self.repo_id is None:
            raise PipelineDefinitionError(
                f"Step `{self.name}` has no `repo_id` to load. Name a dataset of the Hub."
            )
        return load_dataset(
            self.repo_id,
            self.config,
            split=self.split,
            revision=self.data_fingerprint(),
            streaming=bool(self.streaming),
            **({"storage_options": self.storage_options} if self.storage_options else {}),
        )

    def _whence(self) -> str:
        at = f" at `{self.revision}`" if self.revision else ""
        return f"the dataset `{self.repo_id}`{at} of the Hugging Face Hub"


class LoadDataFromDisk(DatasetGenerator):
    """Give the rows of a dataset that was saved by `Dataset.save_to_disk` or `Distiset.save_to_disk`.

    The signature has name, size and time of change (or ETag) of the dataset's files.

    Attributes:
        dataset_path: path or fsspec URL of the directory.
        is_distiset: whether it's a Distiset.
        config: which configuration of a Distiset; "default" or None takes the only one there is.
        split: the split; None takes the only one there is.
        keep_in_memory: whether the dataset is copied into memory instead of being mapped.

    Runtime parameters:
        - `dataset_path`, `is_distiset`, `config`, `split`, `keep_in_memory`: as above.
        - `num_examples`: how many rows to give at most; None for all.
        - `storage_options`: passed to the file system; not part of the signature.
        - `batch_size`: rows per batch.

    Output columns:
        - dynamic: the columns of the dataset.

    Examples:
        >>> import tempfile, datasets
        >>> directory = tempfile.mkdtemp()
        >>> datasets.Dataset.from_list([{"n": 1}, {"n": 2}]).save_to_disk(directory)
        >>> load = LoadDataFromDisk(dataset_path=directory)
        >>> load.outputs
        ['n']
        >>> load.load()
        >>> list(load.process())
        [([{'n': 1}, {'n': 2}], True)]
    """

    dataset_path: RuntimeParameter[str | Path] = Field(
        default=None, description="Path or URL of the saved dataset or Distiset."
    )
    is_distiset: RuntimeParameter[bool] = Field(default=False, description="Whether it's a Distiset.")
    config: RuntimeParameter[str] | None = Field(
        default="default", description="The configuration of a Distiset; by default the only one there is."
    )
    split: RuntimeParameter[str] | None = Field(
        default=None, description="The split; by default the only one there is."
    )
    keep_in_memory: RuntimeParameter[bool] | None = Field(
        default=None, description="Whether the dataset is copied into memory."
    )

    @property
    def outputs(self) -> StepColumns:
        """The columns of the dataset, from its description.

        Raises:
            PipelineDefinitionError: there's no such dataset, configuration or split.
        """
        if self.dataset_path is None:
            return []
        fs, directory = self._find()
        with self._blaming(PipelineDefinitionError, "can't find out the columns of"):
            return list(json.loads(fs.cat_file(f"{directory}/dataset_info.json")).get("features") or {})

    def data_fingerprint(self) -> list[Any] | None:
        """Give name, size and ETag or time of change of each file of the dataset.

        Raises:
            PipelineDefinitionError: there's no such dataset, configuration or split.
        """
        if self.dataset_path is None:
            return None
        fs, directory = self._find()
        files = fs.find(directory, detail=True)
        return [[name[len(directory) :].strip("/"), *version_of(files[name])] for name in sorted(files)]

    def _find(self) -> tuple[Any, str]:
        """The file system, and the directory of the one split that is meant."""
        if self.dataset_path is None:
            raise PipelineDefinitionError(
                f"Step `{self.name}` has no `dataset_path` to load. Name a saved dataset."
            )
        with self._blaming(PipelineDefinitionError, "can't find"):
            fs, directory = url_to_fs(str(self.dataset_path), **(self.storage_options or {}))
            if not fs.isdir(directory):
                raise FileNotFoundError("there is no such directory. Check the path.")
            if self.is_distiset:
                directory = self._choose(
                    fs, directory, _list_configs(fs, directory), self.config, "configuration"
                )
            if fs.exists(f"{directory}/dataset_dict.json"):
                splits = json.loads(fs.cat_file(f"{directory}/dataset_dict.json"))["splits"]
                directory = self._choose(fs, directory, splits, self.split, "split")
            elif self.split is not None and fs.exists(f"{directory}/state.json"):
                saved = json.loads(fs.cat_file(f"{directory}/state.json")).get("_split")
                if saved not in (None, self.split):
                    raise ValueError(f"it's the split `{saved}`, not `{self.split}`. Leave `split` out.")
            if not fs.exists(f"{directory}/dataset_info.json"):
                hint = "" if self.is_distiset else " If it's a Distiset, pass `is_distiset=True`."
                raise FileNotFoundError(f"the directory isn't one that `save_to_disk` wrote.{hint}")
            return fs, directory

    def _choose(self, fs: Any, directory: str, known: list[str], wanted: str | None, what: str) -> str:
        if wanted in known:
            return f"{directory}/{wanted}"
        if len(known) == 1 and (wanted is None or (what == "configuration" and wanted == "default")):
            return f"{directory}/{known[0]}"
        told = ", ".join(f"`{each}`" for each in sorted(known)) or "none"
        field = {"configuration": "config"}.get(what, what)
        found = f"no {what} `{wanted}`" if wanted else f"several {what}s, and none is chosen"
        raise ValueError(f"it has {found}. Pass `{field}`, one of: {told}.")

    def _load_dataset(self) -> Any:
        from datasets import load_from_disk

        fs, directory = self._find()
        path = directory if "file" in fs.protocol else fs.unstrip_protocol(directory)
        return load_from_disk(path, keep_in_memory=self.keep_in_memory, storage_options=self.storage_options)

    def _whence(self) -> str:
        return f"the dataset in `{self.dataset_path}`"


def _list_configs(fs: Any, directory: str) -> list[str]:
    names = [entry["name"].rstrip("/").rpartition("/")[2] for entry in fs.ls(directory, detail=True)]
    saved = ("dataset_dict.json", "dataset_info.json")
    return sorted(
        name
        for name in names
        if name not in _NO_CONFIGS and any(fs.exists(f"{directory}/{name}/{file}") for file in saved)
    )
