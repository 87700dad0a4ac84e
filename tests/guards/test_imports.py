"""What importing the package costs and needs."""

import subprocess
import sys

import pytest

CODE = """
import importlib, pkgutil, sys
import rayreel.{name} as module
for found in pkgutil.walk_packages(getattr(module, "__path__", []), module.__name__ + "."):
    importlib.import_module(found.name)
loaded = {{"torch", "ray", "transformers"}} & sys.modules.keys()
sys.exit(f"rayreel.{name} loads {{', '.join(sorted(loaded))}}" if loaded else 0)
"""


@pytest.mark.parametrize("name", ["config", "errors", "logs"])
def test_specs_can_be_read_without_torch_and_ray(name):
    done = subprocess.run(
        [sys.executable, "-c", CODE.format(name=name)], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_the_standard_library_s_platform_is_not_hidden(repository):
    code = "import platform; platform.python_version()"
    subprocess.run([sys.executable, "-c", code], cwd=repository, check=True)
    assert not (repository / "platform" / "__init__.py").exists()


def test_jobs_do_not_hide_modules_of_the_standard_library(repository):
    # Python puts a script's folder first on its path.
    names = {path.stem for path in (repository / "jobs").glob("*.py")}
    assert names
    assert not names & sys.stdlib_module_names
