"""What every test has: no tables but the shipped ones."""

import pytest


@pytest.fixture(autouse=True, scope="session")
def _no_tables_of_the_user(tmp_path_factory: pytest.TempPathFactory) -> None:
    patch = pytest.MonkeyPatch()
    patch.setenv("SHRINKC_TABLES", str(tmp_path_factory.mktemp("tables")))
