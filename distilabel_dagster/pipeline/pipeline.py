"""The Pipeline: declare steps in its `with` block, run it, write it to a file."""

import contextlib
import logging
import uuid
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal

from distilabel_dagster.base.signature import SIGNATURE_SCHEME
from distilabel_dagster.cache import layout
from distilabel_dagster.cache.filesystem import CacheFileSystem
from distilabel_dagster.cache.pipeline_cache import PipelineCache, note_damage
from distilabel_dagster.dag.dag import DAG
from distilabel_dagster.dag.load_stages import LoadGroups
from distilabel_dagster.dag.signature import compute_pipeline_signature
from distilabel_dagster.engine.events import RunEvent, RunStopped, StepFinished
from distilabel_dagster.engine.plan import RunPlan
from distilabel_dagster.engine.planning import Planner
from distilabel_dagster.engine.run_state import RunOptions, WhenInUse
from distilabel_dagster.errors import (
    DamagedFileError,
    IncompleteRunError,
    PipelineDefinitionError,
)
from distilabel_dagster.pipeline.declaration import PipelineDeclaration
from distilabel_dagster.pipeline.execution import RunEvents, find_responses, iter_run, open_responses
from distilabel_dagster.pipeline.run_log import show_log_on_terminal
from distilabel_dagster.steps import make_generator_step
from distilabel_dagster.steps.step import Step

if TYPE_CHECKING:
    from distilabel_dagster.distiset import Distiset

_logger = logging.getLogger("distilabel_dagster.pipeline")


class Pipeline(PipelineDeclaration):
    """A graph of steps with a name, run against a cache so that it can stop anywhere and go on.

    Args:
        name: its name: part of its signature and of its asset keys. Made from its steps' names where none is given.
        description: what it makes, for people.
        cache_dir: directory or fsspec URL of the cache; DISTILABEL_CACHE_DIR by default, and without that
            `~/.cache/distilabel/pipelines`. `~` is expanded.
        enable_metadata: keep the column `distilabel_metadata` in the Distiset.
        requirements: packages that it needs, checked before a run.
        storage_options: passed to fsspec for `cache_dir`; never written anywhere.
        ledger_url: SQLAlchemy URL of the database that keeps what models answer, and who writes: a SQLite file beside a
            local cache by default. For a cache in an object store it's a file under `~/.cache/distilabel/ledgers` unless
            it's given; then only runs on one machine see each other.

    Examples:
        >>> from distilabel_dagster.steps import KeepColumns, LoadDataFromDicts
        >>> with Pipeline("greetings") as pipeline:
        ...     load = LoadDataFromDicts(name="load", data=[{"text": "hey", "id": 1}])
        ...     keep = KeepColumns(name="keep", columns=["text"])
        ...     _ = load >> keep
        >>> pipeline.run()["keep"]["train"][0]
        {'text': 'hey'}
    """

    def open_cache(self) -> PipelineCache:
        """Give the pipeline's place in the cache, under its present signature; nothing is written.

        Raises:
            CacheDirectoryError: the cache directory's URL can't be used.
        """
        signatures = self.step_signatures
        signature = compute_pipeline_signature(self.name, self.dag, signatures)
        fs = CacheFileSystem(self.cache_dir, self.storage_options)
        return PipelineCache(fs, signature, signatures, self.leaf_steps)

    def run(
        self,
        parameters: Mapping[str, Mapping[str, Any]] | None = None,
        load_groups: LoadGroups | None = None,
        use_cache: bool = True,
        dataset: Any = None,
        dataset_batch_size: int = 50,
        *,
        on_error: Literal["impute", "raise"] = "impute",
        max_cost_usd: float | None = None,
        when_in_use: WhenInUse = "raise",
    ) -> "Distiset":
        """Run the pipeline to its end, or go on where an earlier run of it ended.

        Several threads may call it on one pipeline; they take turns.

        Args:
            parameters: step -> runtime parameter -> value; they count for this run.
            load_groups: groups of steps to run apart from others, or "sequential_step_execution".
            use_cache: False computes all rows anew, from the answers of models that are kept.
            dataset: rows to start from instead of a generator step: a list of dicts, a `datasets.Dataset`, a pandas
                DataFrame.
            dataset_batch_size: rows per batch of `dataset`.
            on_error: what becomes of rows on which an ordinary step raises: "impute" keeps them without the step's
                outputs, marked as failed, and the next run tries them again; "raise" ends the run. A row that fails a
                task, since its call failed or its answer can't be read, is kept either way.
            max_cost_usd: US dollars that the calls of its models may cost under this signature, earlier runs
                included.
            when_in_use: what to do when another run, of this process or another, writes one of the steps: "raise" ends
                with an error that says which process it is; "wait" waits until that has ended, or has made what is
                wanted, and goes on from there.

        Returns:
            The whole Distiset; never a partial one.

        Raises:
            PipelineDefinitionError: the pipeline can't run; nothing was begun.
            StepRunError: a step failed, or its model can't be used; what was committed and answered stays.
            CostLimitError: the calls have cost `max_cost_usd`; what was answered stays.
            StepInUseError: another run writes one of the steps, or has taken this one's place after a long pause.
            KeyboardInterrupt: Ctrl+C, after what was being computed was committed.
        """
        show_log_on_terminal()
        with self._turn, self._with_dataset(dataset, dataset_batch_size), self.with_parameters(parameters):
            options = RunOptions(
                on_error=on_error,
                use_cache=use_cache,
                max_cost_usd=max_cost_usd,
                when_in_use=when_in_use,
            )
            return self._run_to_end(options, load_groups)

    def _run_to_end(self, options: RunOptions, load_groups: LoadGroups | None) -> "Distiset":
        try:
            return self._read_result(self._compute(options, load_groups))
        except DamagedFileError as error:
            _logger.warning("%s That's done now.", error)
        return self._read_result(self._compute(replace(options, use_cache=True), load_groups))

    def _read_result(self, cache: PipelineCache) -> "Distiset":
        from distilabel_dagster.distiset import create_distiset

        try:
            return create_distiset(
                cache.data_url, enable_metadata=self.enable_metadata, storage_options=self.storage_options
            )
        except DamagedFileError:
            note_damage(cache.stores[leaf] for leaf in cache.leaf_steps)
            raise

    def _compute(self, options: RunOptions, load_groups: LoadGroups | None) -> PipelineCache:
        """Run all steps to their end, and show what the leaf steps have made."""
        cache = self.open_cache()
        stopped: RunStopped | None = None
        for event in self.iter_run(options, load_groups=load_groups, cache=cache):
            if isinstance(event, StepFinished):
                cache.seal_step(event.step)
            elif isinstance(event, RunStopped):
                stopped = event  # why it stopped is raised behind the last event: an error, or Ctrl+C
        if stopped is not None:
            raise IncompleteRunError(str(stopped))
        return cache

    def iter_run(
        self,
        options: RunOptions | None = None,
        *,
        steps: Iterable[str] | None = None,
        load_groups: LoadGroups | None = None,
        cache: PipelineCache | None = None,
    ) -> RunEvents:
        """Run some or all steps and yield what happens; for those who seal and show the steps themselves.

        After each `StepFinished` call `cache.seal_step(event.step)` before going on: it's this run's to write until its
        events end. `stop(reason)` of what is returned stops the run.

        Args:
            options: how the run goes.
            steps: the steps to run; all by default. Predecessors that aren't among them must be complete.
            load_groups: as in `run`.
            cache: what `open_cache()` gave, to save computing the signatures twice.

        Raises:
            PipelineDefinitionError: the pipeline can't run; nothing was begun.
            StepInUseError: another run writes one of the steps.
            StepRunError: a step failed; what was committed stays.
            CacheError: the cache can't be read or written.
        """
        self.validate()
        wanted = set(steps) if steps is not None else set(self.dag.steps)
        stages = [[name for name in stage if name in wanted] for stage in self.get_load_stages(load_groups)]
        stages = [stage for stage in stages if stage]
        cache = cache or self.open_cache()
        return iter_run(self, cache, stages, options or RunOptions())

    @contextlib.contextmanager
    def _with_dataset(self, dataset: Any, batch_size: int) -> Iterator[None]:
        """Start from `dataset` for the length of the block."""
        if dataset is None:
            yield
            return
        if self.dag.generator_steps:
            raise PipelineDefinitionError(
                f"Pipeline `{self.name}` has the generator step `{self.dag.generator_steps[0]}`, so it can't start from "
                "`dataset=` as well. Leave one of them out."
            )
        name, before = self._name, self.dag
        self._name, self.dag = self.name, DAG()
        try:
            generator = make_generator_step(dataset, self, batch_size)
            for step in before.steps.values():
                self.dag.add_step(step)
            for each in before.steps:
                if not before.predecessors(each):
                    self.dag.add_edge(generator.name, each)
            for source, target in before.edges:
                self.dag.add_edge(source, target)
            for source, routing in before.routing.items():
                self.dag.set_routing(source, routing)
            yield
        finally:
            self._name, self.dag = name, before

    def dry_run(
        self,
        parameters: Mapping[str, Mapping[str, Any]] | None = None,
        batch_size: int = 1,
        dataset: Any = None,
    ) -> "Distiset":
        """Try the pipeline out on one batch per generator; rows in the cache aren't read or touched.

        What models answer is kept in the ledger, so that a run doesn't pay for it again.

        Args:
            parameters: as in `run`.
            batch_size: rows of that batch.
            dataset: as in `run`.

        Raises:
            PipelineDefinitionError: the pipeline can't run.
            StepRunError: a step failed on the batch.
        """
        show_log_on_terminal()
        with self._turn:
            return self._try_out(parameters, batch_size, dataset)

    def _try_out(
        self, parameters: Mapping[str, Mapping[str, Any]] | None, batch_size: int, dataset: Any
    ) -> "Distiset":
        with (
            self._in_memory(),
            self._with_dataset(dataset, batch_size),
            self.with_parameters(parameters),
            self.with_parameters(self._small_sizes(batch_size)),
        ):
            distiset = self._run_to_end(RunOptions(on_error="raise", max_generator_batches=1), None)
        distiset.pipeline_path = distiset.log_filename_path = None
        return distiset

    @contextlib.contextmanager
    def _in_memory(self) -> Iterator[None]:
        """Have an empty cache for the length of the block, and answers of models where they always are."""
        responses_url = find_responses(self.ledger_url, CacheFileSystem(self.cache_dir, self.storage_options))
        before = self._cache_dir, self.storage_options, self.ledger_url
        self._cache_dir = f"memory://dry-run-{uuid.uuid4().hex}"
        self.storage_options, self.ledger_url, self.responses_url = {}, None, responses_url
        fs = CacheFileSystem(self._cache_dir)
        try:
            yield
        finally:
            self._cache_dir, self.storage_options, self.ledger_url = before
            self.responses_url = None
            fs.remove_all()

    def plan(
        self,
        parameters: Mapping[str, Mapping[str, Any]] | None = None,
        load_groups: LoadGroups | None = None,
        dataset: Any = None,
        dataset_batch_size: int = 50,
        *,
        sample: int = 0,
    ) -> RunPlan:
        """Say what a run is going to call and pay, without paying.

        Steps before the first model, and those whose calls are all in the ledger, are computed and kept: the run to
        come finds them.

        Args:
            parameters: as in `run`.
            load_groups: as in `run`.
            dataset: as in `run`.
            dataset_batch_size: as in `run`.
            sample: calls that each step makes about the first rows, to learn what one uses; they're paid, and the run
                to come finds their answers. None are made where they couldn't be kept, for a cache in memory.

        Raises:
            PipelineDefinitionError: the pipeline can't run.
            StepRunError: a step before the models failed, or a model can't be used.
            CacheError: the cache or the ledger can't be read or written.
        """
        show_log_on_terminal()
        with self._turn, self._with_dataset(dataset, dataset_batch_size), self.with_parameters(parameters):
            if sample:
                self._take_sample(sample)
            cache = self.open_cache()
            for _ in self.iter_free(cache, load_groups=load_groups):
                pass
            return self.plan_calls(cache)

    def _take_sample(self, size: int) -> None:
        """Have each step make some calls about the first rows, row by row so that the steps behind get some too."""
        if find_responses(self.ledger_url, self.open_cache().fs) is None:
            return  # what is learnt would be paid for again
        sizes = {name: {"batch_size": size} for name in self.dag.generator_steps}
        ordinary = (name for name, step in self.dag.steps.items() if isinstance(step, Step))
        sizes.update({name: {"input_batch_size": 1} for name in ordinary})
        options = RunOptions(max_generator_batches=1, max_new_calls=size)
        with self._in_memory(), self.with_parameters(sizes):
            for _ in self.iter_run(options):
                pass

    def iter_free(
        self,
        cache: PipelineCache,
        *,
        steps: Iterable[str] | None = None,
        load_groups: LoadGroups | None = None,
    ) -> Iterator[RunEvent]:
        """Compute and keep what costs no call, up to where one would be made, and yield what happens.

        Args:
            cache: what `open_cache()` gave.
            steps: the steps that may be computed; all by default. Those behind a step that isn't among them and isn't
                complete are left alone.
            load_groups: as in `run`.

        Raises:
            PipelineDefinitionError, StepRunError, CacheError: as `iter_run`.
        """
        wanted = set(steps) if steps is not None else set(self.dag.steps)
        for name in self.dag.topological_order():
            cache.stores[name].open()
            missing = [each for each in self.dag.predecessors(name) if each not in wanted]
            if not all(cache.stores[each].is_complete for each in missing):
                wanted.discard(name)
        if not wanted:
            return
        is_begun = any(cache.fs.exists(each) for each in _files_of_runs(cache))
        try:
            options = RunOptions(max_new_calls=0)
            for event in self.iter_run(options, steps=wanted, load_groups=load_groups, cache=cache):
                if isinstance(event, StepFinished):
                    cache.seal_step(event.step)
                yield event
        finally:
            # By these one tells that a run was begun, to finish it if it died; that would pay for what was only planned.
            for each in [] if is_begun else _files_of_runs(cache):
                cache.fs.remove(each)

    def plan_calls(self, cache: PipelineCache) -> RunPlan:
        """Count what is left to call, with what is in the cache now; nothing is computed.

        Raises:
            CacheError: the cache or the ledger can't be read.
        """
        ledger = open_responses(self, cache)
        try:
            return Planner(self.dag, cache, ledger).plan()
        finally:
            if ledger is not None:
                ledger.close()

    def _small_sizes(self, batch_size: int) -> dict[str, dict[str, int]]:
        sizes = {name: {"batch_size": batch_size} for name in self.dag.generator_steps}
        if self.dag.routing:  # batch sizes have to divide each other where batches are routed whole
            ordinary = (name for name, step in self.dag.steps.items() if isinstance(step, Step))
            sizes.update({name: {"input_batch_size": batch_size} for name in ordinary})
        return sizes

    def freeze(self, cache: PipelineCache) -> dict[str, Any]:
        """Give what `pipeline.yaml` in the cache holds: the pipeline as data, and its signatures."""
        signatures = {"scheme": SIGNATURE_SCHEME, "pipeline": cache.signature, "steps": cache.step_signatures}
        return {**self.dump(), "signatures": signatures}


def _files_of_runs(cache: PipelineCache) -> list[str]:
    """What runs leave in a pipeline's directory, beside the frozen pipeline and the rows."""
    steps = [layout.batch_manager_step_file(cache.signature, name) for name in cache.step_signatures]
    return [layout.log_file(cache.signature), layout.batch_manager_file(cache.signature), *steps]
