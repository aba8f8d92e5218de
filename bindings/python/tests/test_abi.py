"""Every line of _abi.py against radz.h and the C compiler. SPDX-License-Identifier: Apache-2.0"""

from __future__ import annotations

import ctypes
import inspect
import os
import re
import shutil
import subprocess
from enum import IntEnum
from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT
from header import read_header

import radz
from radz import _abi, _evaluate, _lowlevel, _model, _quantize, _session, _trainer, errors

HEADER = read_header(ROOT / "include" / "radz.h")
POINTER = ctypes.POINTER
SIMPLE: dict[str, Any] = {
    "char*": POINTER(ctypes.c_char),
    "char**": POINTER(POINTER(ctypes.c_char)),
    "const char*": ctypes.c_char_p,
    "const char* const*": POINTER(ctypes.c_char_p),
    "const signed char*": POINTER(ctypes.c_byte),
    "double": ctypes.c_double,
    "float": ctypes.c_float,
    "int": ctypes.c_int,
    "int32_t": ctypes.c_int32,
    "int64_t": ctypes.c_int64,
    "size_t": ctypes.c_size_t,
    "uint64_t": ctypes.c_uint64,
    "void": None,
    "void*": ctypes.c_void_p,
    "const void*": ctypes.c_void_p,
}


def python_type(c_type: str) -> Any:
    """The ctypes type for a type of the header."""
    if c_type in SIMPLE:
        return SIMPLE[c_type]
    if array := re.fullmatch(r"char\[(\d+)\]", c_type):
        return ctypes.c_char * int(array[1])
    if function := re.fullmatch(r"(.*?)\((.*)\)", c_type):
        parameters = [python_type(p.strip()) for p in function[2].split(",")]
        return ctypes.CFUNCTYPE(python_type(function[1]), *parameters)
    if c_type in HEADER.enums:
        return ctypes.c_int
    base = c_type.replace("const", "").replace(" ", "").rstrip("*")
    made = SIMPLE.get(base) or getattr(_abi, base)
    for _ in range(c_type.count("*")):
        made = POINTER(made)
    return made


def members(kind: type) -> dict[str, Any]:
    found = inspect.getmembers(_abi, lambda v: inspect.isclass(v) and issubclass(v, kind) and v is not kind)
    return {name: value for name, value in found if name.startswith("radz_")}


def test_the_header_was_read() -> None:
    assert len(HEADER.functions) > 100
    assert len(HEADER.structs) > 20
    assert len(HEADER.enums) > 8
    text = (ROOT / "include" / "radz.h").read_text(encoding="utf-8")
    assert len(HEADER.functions) == len(re.findall(r"^RADZ_API ", text, re.M))


def test_version() -> None:
    assert radz.__version__ == HEADER.version
    assert f'version = "{HEADER.version}"' in (ROOT / "bindings/python/pyproject.toml").read_text(encoding="utf-8")
    assert HEADER.version.startswith(f"{_lowlevel.MINIMUM[0]}.")


def test_enums() -> None:
    ours = {name: {m.name: int(m) for m in kind} for name, kind in members(IntEnum).items()}
    assert ours == HEADER.enums


def test_structs_have_the_fields_of_the_header() -> None:
    structs = {n: s for n, s in members(ctypes.Structure).items() if hasattr(s, "_fields_")}
    assert set(structs) == set(HEADER.structs)
    for name, kind in structs.items():
        expected = [(field, python_type(c_type)) for field, c_type in HEADER.structs[name]]
        assert list(kind._fields_) == expected, name
    handles = {n for n, s in members(ctypes.Structure).items() if not hasattr(s, "_fields_")}
    assert handles == set(HEADER.handles)


def test_functions_have_the_types_of_the_header() -> None:
    assert set(_abi.PROTOTYPES) == set(HEADER.functions)
    for name, (result, *parameters) in HEADER.functions.items():
        expected = [_abi.radz_status if result == "radz_status" else python_type(result)]
        expected += [python_type(p) for p in parameters]
        assert list(_abi.PROTOTYPES[name]) == expected, name
        function = getattr(_lowlevel.lib, name)
        assert list(function.argtypes) == expected[1:], name
        assert function.restype == python_type(result), name
        if result == "radz_status":
            assert parameters[-1] == "radz_error*", name
            assert function.errcheck is _lowlevel._check_status, name


def c_program() -> str:
    lines = ["#include <radz.h>", "#include <stdio.h>", "#include <stddef.h>", "int main(void) {"]
    for name, struct in HEADER.structs.items():
        lines.append(f'printf("{name} %zu\\n", sizeof({name}));')
        for field, _ in struct:
            size = f"sizeof((({name} *)0)->{field})"
            lines.append(f'printf("{name}.{field} %zu %zu\\n", offsetof({name}, {field}), {size});')
    for name, enum in HEADER.enums.items():
        lines.append(f'printf("{name} %zu\\n", sizeof({name}));')
        lines += [f'printf("{constant} %d\\n", (int){constant});' for constant in enum]
    return "\n".join([*lines, "}"])


def test_sizes_and_offsets_are_those_of_the_compiler(tmp_path: Path) -> None:
    compiler = (os.environ.get("CC") or "cc").split()
    if shutil.which(compiler[-1]) is None:
        pytest.skip("no C compiler")
    source = tmp_path / "layout.c"
    source.write_text(c_program())
    program = tmp_path / "layout"
    subprocess.run([*compiler, "-I", str(ROOT / "include"), str(source), "-o", str(program)], check=True)
    said = subprocess.run([program], check=True, capture_output=True, text=True).stdout
    ours = []
    for name, struct in HEADER.structs.items():
        kind = getattr(_abi, name)
        ours.append(f"{name} {ctypes.sizeof(kind)}")
        ours += [f"{name}.{f} {getattr(kind, f).offset} {getattr(kind, f).size}" for f, _ in struct]
    for name, enum in HEADER.enums.items():
        ours.append(f"{name} {ctypes.sizeof(ctypes.c_int)}")
        ours += [f"{constant} {int(getattr(_abi, name)[constant])}" for constant in enum]
    assert said.splitlines() == ours


@pytest.mark.parametrize(
    ("kind", "struct", "without"),
    [
        (_model.ModelInfo, _abi.radz_model_info, ()),
        (_quantize.QuantizeProgress, _abi.radz_quantize_progress, ()),
        (_session.Token, _abi.radz_generate_progress, ()),
        (_trainer.TrainOptions, _abi.radz_train_options, ("progress_fn", "user", "comm")),
        (_trainer.TrainProgress, _abi.radz_train_progress, ()),
        (_trainer.TrainPlan, _abi.radz_train_plan, ()),
        (_evaluate.EvalOptions, _abi.radz_eval_options, ("progress_fn", "user", "writing", "others", "n_others")),
        (_evaluate.EvalProgress, _abi.radz_eval_progress, ()),
        (_evaluate.ScoreOptions, _abi.radz_score_options, ("n_templates", "n_negatives")),
    ],
)
def test_dataclasses_have_every_field(kind: Any, struct: Any, without: tuple[str, ...]) -> None:
    expected = {name for name, _ in struct._fields_} - {"struct_size", *without}
    assert {name.rstrip("_") for name in kind.__dataclass_fields__} == expected


def test_every_code_has_its_exception() -> None:
    for status in _abi.radz_status:
        if status:
            error = errors.error_of(status, "words")
            assert error.code == status
            assert str(error) == "words"
            assert error.status == _lowlevel.lib.radz_status_name(status).decode()
    assert isinstance(errors.error_of(99, "words"), radz.InternalError)
