"""Names that a module assigns by unpacking or in blocks count in the fingerprint of what reads them."""

import pytest

from tests.unit.base.test_code_fingerprint import fingerprint

HEAD = "from string import Template\n"
READS = "\ndef speak():\n    return A.template\n"

FORMS = {
    "tuple": 'A, B = Template("hello"), Template("bye")',
    "list": '[A, B] = [Template("hello"), Template("bye")]',
    "starred": 'B, *A = Template("bye"), Template("hello")',
    "within a tuple": '(A, B), C = (Template("hello"), 1), 2',
    "except": 'try:\n    import not_there\nexcept ImportError:\n    A = Template("hello")',
    "else of try": 'try:\n    pass\nexcept ImportError:\n    A = 1\nelse:\n    A = Template("hello")',
    "finally": 'try:\n    pass\nfinally:\n    A = Template("hello")',
    "if": 'if True:\n    A = Template("hello")',
    "elif": 'if not HEAD:\n    pass\nelif HEAD:\n    A: Template = Template("hello")',
    "with": 'import contextlib\nwith contextlib.nullcontext():\n    A = Template("hello")',
    "for": 'for _ in range(1):\n    A = Template("hello")',
    "while": 'while True:\n    A = Template("hello")\n    break',
    "match": 'match 1:\n    case 1:\n        A = Template("hello")',
    "block in a block": 'if True:\n    if True:\n        A, B = Template("hello"), 1',
}


@pytest.mark.parametrize("form", FORMS)
def test_a_value_assigned_so_counts(form: str) -> None:
    source = f"{HEAD}HEAD = 1\n{FORMS[form]}\n{READS.replace('A.template', 'A')}"
    assert fingerprint("speak", source=source) == fingerprint("speak", source=source)
    assert fingerprint("speak", ("hello", "good day"), source=source) != fingerprint("speak", source=source)


def test_each_branch_counts() -> None:
    source = f'{HEAD}if True:\n    A = Template("one")\nelse:\n    A = Template("two")\n{READS}'
    found = [
        fingerprint("speak", *changes, source=source) for changes in ([], [("one", "1")], [("two", "2")])
    ]
    assert len(set(found)) == 3


def test_what_a_container_holds_says_which_branch_was_taken() -> None:
    source = f"if True:\n    A = [1]\nelse:\n    A = [2]\n{READS}"
    assert fingerprint("speak", ("[2]", "[3]"), source=source) == fingerprint("speak", source=source)
    assert fingerprint("speak", ("if True", "if False"), source=source) != fingerprint("speak", source=source)


@pytest.mark.parametrize(
    "other",
    [
        'if False:\n    A = Template("two")',
        "if False:\n    A, B = 1, 2",
        "def f():\n    A = 1",
        "class F:\n    A = 1",
    ],
)
def test_a_plain_assignment_at_the_top_is_what_counts(other: str) -> None:
    source = f'{HEAD}A = Template("one")\n{READS}'
    assert fingerprint("speak", (READS, f"\n{other}\n{READS}"), source=source) == fingerprint(
        "speak", source=source
    )


def test_a_container_of_an_unpacked_call_counts_by_its_value() -> None:
    source = f"def load():\n    return eval('[1], [2]')\n\nA, B = load()\n{READS}"
    again = source.replace("eval('[1], [2]')", "eval('[1], [3]')")
    other = source.replace("eval('[1], [2]')", "eval('[3], [2]')")
    found = [fingerprint("speak", source=each) for each in (source, again, other)]
    assert found[0] == found[1] != found[2]


@pytest.mark.parametrize("block", ["def f():\n    ", "class F:\n    "])
def test_names_in_functions_and_classes_are_others(block: str) -> None:
    source = f"{HEAD}globals()['A'] = Template('x')\n{block}A = Template('one')\n{READS}"
    assert fingerprint("speak", ("one", "two"), source=source) == fingerprint("speak", source=source)
