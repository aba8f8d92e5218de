"""What the tests share. SPDX-License-Identifier: Apache-2.0"""

from __future__ import annotations

import atexit
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

import radz

ROOT = Path(__file__).resolve().parents[3]


def writing_model() -> Path:
    """radz-tiny without the note that it cannot write: what it writes is no use, and enough for tests."""
    folder = tempfile.mkdtemp(prefix="radz-tests-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    path = Path(folder) / "radz-tiny"
    shutil.copytree(ROOT / "models" / "radz-tiny", path)
    settings = json.loads((path / "radz.json").read_text())
    del settings["can_write"]
    (path / "radz.json").write_text(json.dumps(settings))
    with radz.Model(path) as model, radz.Session(model) as session:
        radz.Bank.build(session, ROOT / "models" / "diseases.txt").save(path / "anchors.safetensors")
    return path


MODEL = writing_model()
FILMS = sorted((ROOT / "examples" / "data").glob("*.jpg"))
FILM = next(f for f in FILMS if f.name == "nih_00006759_001.jpg")
#: The programs, built by make.
PROGRAMS = Path(os.environ.get("RADZ_PROGRAMS", ROOT / "build" / "release" / "bin"))


@pytest.fixture(scope="session")
def model() -> Iterator[radz.Model]:
    with radz.Runtime(n_threads=2) as runtime, radz.Model(MODEL, runtime) as model:
        yield model


@pytest.fixture
def session(model: radz.Model) -> Iterator[radz.Session]:
    with radz.Session(model) as session:
        yield session


@pytest.fixture(scope="session")
def bank(model: radz.Model) -> radz.Bank:
    return radz.Bank(model)
