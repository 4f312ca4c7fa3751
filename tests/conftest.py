"""What every test has: no tables but the shipped ones, nothing measured by earlier runs, short
fits and distillation."""

import gc

import pytest
from short_fits import shorten


@pytest.hookimpl(trylast=True)
def pytest_collection_finish() -> None:
    """The collector need not look through PyTorch and the tests' code again and again."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True, scope="session")
def _nothing_of_the_user(tmp_path_factory: pytest.TempPathFactory) -> None:
    patch = pytest.MonkeyPatch()
    patch.setenv("SHRINKC_TABLES", str(tmp_path_factory.mktemp("tables")))
    patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
    shorten(patch.setattr)  # a plan of a tiny network takes seconds otherwise
