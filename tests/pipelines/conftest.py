import pytest

from rayreel.pipelines.ledger import ModelLedger
from tests.pipelines.small import tiny_ledger, write_image


@pytest.fixture(scope="package")
def ledger() -> ModelLedger:
    """The tiny model, shared by these tests."""
    return tiny_ledger()


@pytest.fixture(scope="package")
def picture(tmp_path_factory):
    """A file with a picture."""
    return write_image(tmp_path_factory.mktemp("pictures"))
