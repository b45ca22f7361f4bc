"""Pushing a Distiset to the Hugging Face Hub."""

import inspect
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from distilabel_dagster.distiset import card
from distilabel_dagster.errors import DistisetError, suggest

if TYPE_CHECKING:
    from datasets import DatasetDict

_REFUSED: Final = {
    "config_name": "each config is pushed under its own name",
    "data_dir": "each config needs a directory of its own, or one would replace another",
    "create_pr": "each config is a commit, and each would open a pull request; push to a branch by `revision`",
}
_DATA_CONFIG: Final = "data"


def push(
    configs: "Mapping[str, DatasetDict]",
    repo_id: str,
    files: Mapping[str, bytes],
    *,
    private: bool,
    token: str | None,
    generate_card: bool,
    include_script: bool,
    options: Mapping[str, Any],
) -> None:
    """Push each config, then the files and the card in one commit.

    Args:
        configs: what is pushed, by the name that it gets.
        repo_id: the dataset repository.
        files: contents of `pipeline.yaml` and `pipeline.log`, as far as they're known.
        private: make a new repository private.
        token: access token; None for that of the machine's login.
        generate_card: write the dataset card.
        include_script: push the running script, too.
        options: passed to `DatasetDict.push_to_hub`.

    Raises:
        DistisetError: the options or the configs' names can't work, said before any request; or the Hub refused.
    """
    from huggingface_hub import CommitOperationAdd, HfApi

    _check_options(options)
    _check_names(configs)
    files = {**files, **_running_script()} if include_script else dict(files)
    api = HfApi(token=token)
    revision = options.get("revision")
    with _explained(f"The dataset repository `{repo_id}` can't be made or reached", token):
        repo_id = api.create_repo(repo_id, repo_type="dataset", private=private, exist_ok=True).repo_id
    commit = None
    for number, (config, dataset_dict) in enumerate(configs.items()):
        pushed = ", ".join(f"`{name}`" for name in list(configs)[:number]) or "none"
        with _explained(
            f"Config `{config}` can't be pushed to `{repo_id}` (pushed before it: {pushed})", token
        ):
            commit = dataset_dict.push_to_hub(
                repo_id, config_name=config, private=private, token=token, **options
            )
    with _explained(f"All configs were pushed to `{repo_id}`, but its card and files can't be", token):
        if generate_card and commit is not None:
            readme = api.hf_hub_download(repo_id, card.CARD_FILE, repo_type="dataset", revision=commit.oid)
            header = card.read_header(Path(readme).read_text(encoding="utf-8"))
            files[card.CARD_FILE] = card.build_card(configs, files, name=repo_id, header=header).encode()
        if files:
            api.create_commit(
                repo_id,
                [
                    CommitOperationAdd(path_in_repo=name, path_or_fileobj=content)
                    for name, content in files.items()
                ],
                commit_message="Upload the pipeline and the dataset card",
                repo_type="dataset",
                revision=revision,
            )


def _check_options(options: Mapping[str, Any]) -> None:
    from datasets import DatasetDict

    known = set(inspect.signature(DatasetDict.push_to_hub).parameters) - {"self", *_REFUSED}
    for name in options:
        if name in _REFUSED:
            raise DistisetError(f"push_to_hub can't take `{name}`: {_REFUSED[name]}. Leave it out.")
        if name not in known:
            raise DistisetError(f"push_to_hub has no option `{name}`.{suggest(name, known)} Leave it out.")


def _check_names(configs: "Mapping[str, DatasetDict]") -> None:
    if _DATA_CONFIG in configs:
        raise DistisetError(
            f"A config can't be pushed as `{_DATA_CONFIG}`, which the Hub keeps for the config `default`. Rename it: "
            f'`distiset["<name>"] = distiset.pop("{_DATA_CONFIG}")`.'
        )


def _running_script() -> dict[str, bytes]:
    script = Path(getattr(sys.modules["__main__"], "__file__", None) or "")
    if script.suffix != ".py" or not script.is_file():
        raise DistisetError(
            "include_script needs a running Python script, and this process was started in another way. Leave it out, "
            "or push from the script that makes the pipeline."
        )
    return {script.name: script.read_bytes()}


@contextmanager
def _explained(failure: str, token: str | None) -> Iterator[None]:
    """Turn what the Hub's client raises into this package's error, without the token."""
    from huggingface_hub.errors import HfHubHTTPError

    # Its bases cover a broken connection, whichever HTTP library this version of the client uses.
    failures: tuple[type[BaseException], ...] = (*HfHubHTTPError.__bases__, OSError, ValueError, RuntimeError)
    try:
        yield
    except failures as error:
        told = str(error)
        leaks = bool(token) and str(token) in told
        if leaks:
            told = told.replace(str(token), "***")
        raise DistisetError(
            f"{failure}: {told.rstrip('.')}. Check the name, the connection and the token's rights, then push again: what "
            "was pushed is replaced."
        ) from (None if leaks else error)
