import gc

import pytest

from distilabel_dagster.base.heavy_imports import importing_much


def test_no_garbage_is_collected_meanwhile_even_if_the_import_fails() -> None:
    assert gc.isenabled()
    with importing_much(), importing_much():
        assert not gc.isenabled()
    assert gc.isenabled()
    with pytest.raises(ImportError), importing_much():
        raise ImportError
    assert gc.isenabled()


def test_a_collector_that_is_off_stays_off() -> None:
    gc.disable()
    try:
        with importing_much():
            assert not gc.isenabled()
        assert not gc.isenabled()
    finally:
        gc.enable()
