"""The disk cache of compiled kernels: warm where nothing changed, never stale."""

import ast
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

import fullspan.core
from fullspan.core import kernels
from fullspan.core.kernels import helper, kernel
from fullspan.core.references import by_reference

_SOURCES = {
    "_small.py": "from fullspan.core.kernels import helper\n\n"
    "@helper()\ndef step(x):\n    return x + STEP\n\nSTEP = 1\n",
    "_large.py": "from fullspan.core.kernels import kernel\nfrom fullspan.pack._small import step\n\n"
    "@kernel()\ndef walk(n):\n    x = 0\n    for _ in range(n):\n        x = step(x)\n    return x\n",
}


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """A copy of fullspan's core with a folder of two kernel files, the second of which inlines the first."""
    core = Path(fullspan.core.__file__).parent
    shutil.copytree(core, tmp_path / "fullspan" / "core", ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "fullspan" / "__init__.py").touch()
    (tmp_path / "fullspan" / "pack").mkdir()
    for name, source in _SOURCES.items():
        (tmp_path / "fullspan" / "pack" / name).write_text(source)
    return tmp_path


def _run(package: Path) -> list[str]:
    program = (
        f"import sys; sys.path.insert(0, {str(package)!r})\n"
        "from fullspan.core.kernels import was_compiled\n"
        "from fullspan.pack._large import walk\n"
        "print(walk(5), was_compiled(walk))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    return done.stdout.split()


def test_an_edit_in_an_imported_file_is_seen(package: Path) -> None:
    assert _run(package) == ["5", "True"]
    assert _run(package) == ["5", "False"]
    small = package / "fullspan" / "pack" / "_small.py"
    small.write_text(_SOURCES["_small.py"].replace("STEP = 1", "STEP = 2"))
    assert _run(package) == ["10", "True"]
    small.write_text(_SOURCES["_small.py"])
    assert _run(package) == ["5", "False"]


def test_kernels_from_the_disk_find_the_runtime(package: Path) -> None:
    """Arrays that they make, and BLAS, though a process that only loads imports nothing that compiles."""
    source = (
        "import numpy as np\nfrom fullspan.core.kernels import kernel\n\n"
        "@kernel()\ndef walk(n):\n    x = np.ones((n, n))\n    return np.dot(x, x)[0, 1]\n"
    )
    (package / "fullspan" / "pack" / "_large.py").write_text(source)
    assert _run(package) == ["5.0", "True"]
    assert _run(package) == ["5.0", "False"]


def test_of_two_processes_one_compiles_and_the_other_loads(package: Path) -> None:
    """Each kernel once for both, also when they want it for different types at the same time."""
    program = (
        f"import sys; sys.path.insert(0, {str(package)!r})\n"
        "from fullspan.pack._large import walk\n"
        "print('ready', flush=True)\n"
        "found = [walk(eval(n)) for n in input().split()]\n"
        "print(*found, sum(walk.stats.cache_misses.values()))"
    )

    def start() -> subprocess.Popen[str]:
        words = [sys.executable, "-c", program]
        return subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def wait_until_ready(process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None and process.stdout.readline() == "ready\n"

    def finish(process: subprocess.Popen[str]) -> list[str]:
        return process.communicate()[0].split()

    both = [start(), start()]
    for process in both:
        wait_until_ready(process)
    for process, numbers in zip(both, ("5 True", "True 5"), strict=True):
        assert process.stdin is not None
        process.stdin.write(numbers + "\n")
        process.stdin.flush()
    (*one, n_one), (*other, n_other) = map(finish, both)
    assert one == ["5", "1"] and other == ["1", "5"]
    assert int(n_one) + int(n_other) == 2
    later = start()
    wait_until_ready(later)
    later.stdin.write("5 True")
    assert finish(later) == ["5", "1", "0"]


class _Sums(NamedTuple):
    x: np.ndarray
    total: np.ndarray
    weight: np.ndarray | None
    factor: float


@helper(counts_references=False)
def _add_up(sums):
    for i in range(len(sums.x)):
        sums.total[0] += sums.factor * sums.x[i] * _weight(sums.weight, i)


@helper(counts_references=False)
def _weight(weight, i):
    return 1.0 if weight is None else weight[i]


@kernel(counts_references=False)
def _weighted_sum(sums):
    _add_up(by_reference(sums))


@pytest.mark.parametrize(("weight", "expected"), [(None, 12.0), (np.array([0.0, 1.0, 2.0, 0.0]), 10.0)])
def test_helpers_read_and_write_a_tuple_by_reference(weight: np.ndarray | None, expected: float) -> None:
    """With other types of members the helper is compiled again: a reference says what it points to."""
    total = np.zeros(1)
    _weighted_sum(_Sums(np.arange(4.0), total, weight, 2.0))
    assert total[0] == expected


def test_a_kernel_knows_every_module_that_its_sources_import():
    """What stale code from the disk would come from: an import overlooked. The parser finds all."""
    root = Path(fullspan.core.__file__).parent.parent
    for file in root.rglob("*.py"):
        names = []
        for node in ast.walk(ast.parse(file.read_bytes())):
            if isinstance(node, ast.Import):
                names += [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.module:
                names += [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        expected = {kernels._module_file(name) for name in names if name.startswith("fullspan.")} - {None}
        assert set(kernels._imports(file)) >= expected, file
