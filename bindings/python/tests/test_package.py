"""The package as people get it: a source distribution, a wheel from it alone, a clean virtual environment.

SPDX-License-Identifier: Apache-2.0
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest
from conftest import FILM, MODEL, ROOT

import radz

CLASSIFY = (
    "import json, sys, radz\n"
    "with radz.Model(sys.argv[1]) as model, radz.Session(model) as session:\n"
    "    scores = [[s.label, s.probability] for s in session.classify(sys.argv[2])]\n"
    "print(json.dumps([radz.library_path, scores]))\n"
)


def run(*command: object, where: Path, **env: str) -> subprocess.CompletedProcess[str]:
    """In another folder, and with nothing of ours in the environment."""
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("RADZ_", "PYTHON", "MAKE", "PIP_"))}
    return subprocess.run(
        [*map(str, command)], cwd=where, env={**clean, **env}, capture_output=True, text=True, check=False
    )


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an environment of its own and the source distribution unpacked, far from the repository."""
    if not (ROOT / "Makefile").exists() or shutil.which("make") is None:
        pytest.skip("no repository around, or no make")
    here = tmp_path_factory.mktemp("package")
    code = f"import build_radz; build_radz.build_sdist({str(here)!r})"
    made = run(sys.executable, "-B", "-c", code, where=ROOT / "bindings" / "python")
    assert made.returncode == 0, made.stderr
    with tarfile.open(here / f"radz-{radz.__version__}.tar.gz") as tar:
        assert not [m.name for m in tar if m.name.startswith("/") or ".." in m.name or m.uname]
        tar.extractall(here, filter="data")
    venv.create(here / "venv", with_pip=True)
    return here


def pip(place: Path, *arguments: object, **env: str) -> subprocess.CompletedProcess[str]:
    program = place / "venv" / "bin" / "pip"
    return run(program, "--disable-pip-version-check", *arguments, where=place, **env)


def test_a_wheel_from_the_source_distribution_alone(place: Path, model: radz.Model) -> None:
    """It builds the library, carries it, says for which platform, and scores as we do."""
    source = place / f"radz-{radz.__version__}"
    made = pip(place, "wheel", "--no-index", "--no-deps", "-w", place / "wheels", source, RADZ_BUNDLE="1")
    assert made.returncode == 0, made.stdout + made.stderr
    (wheel,) = (place / "wheels").iterdir()
    assert wheel.name.startswith(f"radz-{radz.__version__}-py3-none-linux_")
    with zipfile.ZipFile(wheel) as z:
        assert {"radz/py.typed", "radz/_lib/libradz.so.0"} <= set(z.namelist())
        assert "Root-Is-Purelib: false" in z.read(f"radz-{radz.__version__}.dist-info/WHEEL").decode()
    assert pip(place, "install", "--no-index", wheel).returncode == 0
    said = run(place / "venv" / "bin" / "python", "-c", CLASSIFY, MODEL, FILM, where=place)
    assert said.returncode == 0, said.stderr
    where, scores = json.loads(said.stdout)
    assert where.startswith(str(place / "venv"))
    assert where.endswith("radz/_lib/libradz.so.0")
    with radz.Session(model) as session:
        assert scores == [[s.label, s.probability] for s in session.classify(FILM)]


def test_the_named_library_and_no_other(place: Path) -> None:
    """RADZ_LIBRARY that will not do ends the build, and the import, though there are others."""
    source, python = place / f"radz-{radz.__version__}", place / "venv" / "bin" / "python"
    for wrong, words in (("/nowhere/libradz.so", "no such file"), (__file__, "invalid ELF header")):
        built = pip(place, "wheel", "--no-index", "--no-deps", "-w", place / "none", source, RADZ_LIBRARY=wrong)
        assert built.returncode != 0
        assert f"RADZ_LIBRARY '{wrong}'" in built.stdout + built.stderr
        assert words in built.stdout + built.stderr
        assert not list((place / "none").glob("*"))
        said = run(python, "-c", "import radz", where=place, RADZ_LIBRARY=wrong)
        assert said.returncode != 0
        assert f"RADZ_LIBRARY, '{wrong}'" in said.stderr.splitlines()[-1]


def test_no_library_at_all_is_said(place: Path) -> None:
    if run(sys.executable, "-c", "import ctypes; ctypes.CDLL('libradz.so.0')", where=place).returncode == 0:
        pytest.skip("this system has a libradz")
    source = place / f"radz-{radz.__version__}"
    built = pip(place, "wheel", "--no-index", "--no-deps", "-w", place / "none", source, RADZ_BUNDLE="0")
    assert built.returncode != 0
    assert "RADZ_BUNDLE=0, but the system's libradz.so.0 will not do" in built.stdout + built.stderr


def test_the_example_draws(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    out = tmp_path / "scores.png"
    script = ROOT / "bindings" / "python" / "examples" / "show_scores.py"
    library = os.environ.get("RADZ_LIBRARY")
    env = {"MPLBACKEND": "Agg", **({"RADZ_LIBRARY": library} if library else {})}
    said = run(sys.executable, script, MODEL, FILM, "-o", out, where=tmp_path, **env)
    assert said.returncode == 0, said.stderr
    assert out.read_bytes()[:4] == b"\x89PNG"
