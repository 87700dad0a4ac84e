import pytest

from rayreel.pipelines.components import Components
from tests.pipelines.small import tiny_components, write_image


@pytest.fixture(scope="package")
def components() -> Components:
    """The tiny model, shared by these tests."""
    return tiny_components()


@pytest.fixture(scope="package")
def picture(tmp_path_factory):
    """A file with a picture."""
    return write_image(tmp_path_factory.mktemp("pictures"))
