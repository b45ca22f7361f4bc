import pytest

from distilabel_dagster.dag.dag import DAG
from distilabel_dagster.dag.routing import sample_n_steps
from distilabel_dagster.errors import PipelineDefinitionError, RoutingError, StepNameError
from distilabel_dagster.steps import GlobalStep, KeepColumns, LoadDataFromDicts


class Whole(GlobalStep):
    def process(self, inputs):
        yield inputs


def make_dag(*edges: str) -> DAG:
    """`make_dag("load>a", "a>b")`: a graph in the order of the edges; `load` is a generator."""
    dag = DAG()
    for name in dict.fromkeys(name for edge in edges for name in edge.split(">")):
        dag.add_step(
            LoadDataFromDicts(name=name, data=[{"n": 1}])
            if name.startswith("load")
            else KeepColumns(name=name, columns=["n"])
        )
    for edge in edges:
        dag.add_edge(*edge.split(">"))
    return dag


def test_orders_are_those_of_declaration_and_connection() -> None:
    dag = make_dag("load>b", "load>a", "a>j", "b>j")
    assert dag.topological_order() == ["load", "b", "a", "j"]
    assert dag.predecessors("j") == ["a", "b"]
    assert dag.successors("load") == ["b", "a"]
    assert (dag.leaf_steps, dag.generator_steps) == (["j"], ["load"])


def test_a_step_stands_behind_its_predecessors_whenever_it_was_declared() -> None:
    dag = DAG()
    for name in ("late", "early"):
        dag.add_step(KeepColumns(name=name, columns=["n"]))
    dag.add_edge("early", "late")
    assert dag.topological_order() == ["early", "late"]


def test_ancestors_and_descendants_reach_all_the_way() -> None:
    dag = make_dag("load>a", "a>b", "load>c")
    assert dag.ancestors("b") == {"a", "load"}
    assert dag.descendants(["a", "c"]) == {"b"}


def test_a_circle_is_refused_with_its_path() -> None:
    dag = make_dag("a>b", "b>c")
    with pytest.raises(PipelineDefinitionError, match="`a` >> `b` >> `c` >> `a`"):
        dag.add_edge("c", "a")
    with pytest.raises(PipelineDefinitionError, match="`a` >> `a`"):
        dag.add_edge("a", "a")


def test_names_are_taken_whatever_their_case() -> None:
    dag = make_dag("load>a")
    with pytest.raises(StepNameError, match="already has `a`"):
        dag.add_step(KeepColumns(name="A", columns=["n"]))


@pytest.mark.parametrize("name", ["../x", "a/b", "", " ", "a.b", "distiset", "x" * 129, "ü"])
def test_a_name_that_cannot_be_a_path_is_refused(name: str) -> None:
    if not name:
        assert KeepColumns(name=name, columns=["n"]).name == "keep_columns_0"
        return
    with pytest.raises(StepNameError, match="can't be called"):
        KeepColumns(name=name, columns=["n"])


def test_steps_are_connected_once_and_never_into_a_generator() -> None:
    dag = make_dag("load>a", "load_b>b")
    with pytest.raises(PipelineDefinitionError, match="already connected"):
        dag.add_edge("load", "a")
    with pytest.raises(PipelineDefinitionError, match="`load_b` is a GeneratorStep"):
        dag.add_edge("a", "load_b")


def test_an_unknown_step_is_an_error_with_near_names() -> None:
    with pytest.raises(StepNameError, match=r"Did you mean `alpha`"):
        make_dag("load>alpha").get_step("alhpa")


def test_a_step_has_one_routing_function() -> None:
    dag = make_dag("load>a", "load>b")
    function = sample_n_steps(1)
    dag.set_routing("load", function)
    dag.set_routing("load", function)
    with pytest.raises(RoutingError, match="only one"):
        dag.set_routing("load", sample_n_steps(1))


def test_a_convergence_step_follows_branches_of_one_routing_step() -> None:
    dag = make_dag("load>a", "load>b", "a>j", "b>j", "b>k")
    assert dag.convergence_source("j") is None
    dag.set_routing("load", sample_n_steps(1))
    assert (dag.convergence_source("j"), dag.convergence_source("k")) == ("load", None)
    assert (dag.routed_from("a"), dag.routed_from("j")) == ("load", None)
