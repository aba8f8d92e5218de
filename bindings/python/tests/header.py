"""Reads the declarations of radz.h, so that a test can hold the binding against them.

SPDX-License-Identifier: Apache-2.0
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path


@dataclass
class Header:
    version: str = ""
    enums: dict[str, dict[str, int]] = field(default_factory=dict)
    structs: dict[str, list[tuple[str, str]]] = field(default_factory=dict)  # name: (field, type) in order
    handles: list[str] = field(default_factory=list)  # structs without a body
    functions: dict[str, list[str]] = field(default_factory=dict)  # name: type of the result, then of the parameters


def tidy(c_type: str) -> str:
    """'const radz_image *const *' whatever the spaces were."""
    return re.sub(r" ?\* ?", "*", " ".join(c_type.split())).replace("*const", "* const")


def declarator(text: str) -> tuple[str, str]:
    """(name, type) of 'const char *path', 'char message[508]', 'int (*cancel_fn)(void *user)'."""
    text = " ".join(text.split())
    function = re.fullmatch(r"(.*?)\(\*(\w+)\)\((.*)\)", text)
    if function:
        result, name, parameters = function.groups()
        return name, f"{tidy(result)}({', '.join(parameter_types(parameters))})"
    match = re.fullmatch(r"(.*?[\s*])(\w+)(\[(\d+)\])?", text)
    assert match, text
    kind, name, _, size = match.groups()
    return name, tidy(kind) + (f"[{size}]" if size else "")


def split_parameters(text: str) -> list[str]:
    """At commas outside parentheses."""
    parts, depth = [""], 0
    for c in text:
        depth += (c == "(") - (c == ")")
        if c == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += c
    return parts


def parameter_types(text: str) -> list[str]:
    return [] if text.strip() in ("", "void") else [declarator(p)[1] for p in split_parameters(text)]


def fields(body: str) -> list[tuple[str, str]]:
    found = []
    for statement in filter(None, (s.strip() for s in body.split(";"))):
        if "(" in statement:
            found.append(declarator(statement))
            continue
        first, *more = statement.split(",")
        name, kind = declarator(first)
        found.append((name, kind))
        base = kind.rstrip("*")
        for other in more:
            stars = other.count("*")
            found.append((other.replace("*", "").strip(), base + "*" * stars))
    return found


def enumerators(body: str) -> dict[str, int]:
    pairs = (item.split("=") for item in body.split(",") if item.strip())
    return {name.strip(): int(value) for name, value in pairs}


def read_header(path: Path) -> Header:
    text = path.read_text(encoding="utf-8")
    header = Header()
    header.version = ".".join(re.findall(r"#define RADZ_VERSION_(?:MAJOR|MINOR|PATCH) (\d+)", text))
    text = re.sub(r"/\*.*?\*/", " ", text, flags=re.S)
    text = re.sub(r"^\s*#.*?(?<!\\)$", "", text, flags=re.M | re.S)
    text = text.replace('extern "C" {', "")
    for body, name in re.findall(r"typedef enum \w+ \{(.*?)\} ?(\w+);", text, flags=re.S):
        header.enums[name] = enumerators(body)
    for body, name in re.findall(r"typedef struct \w+ \{(.*?)\} ?(\w+);", text, flags=re.S):
        header.structs[name] = fields(body.replace("struct ", ""))
    header.handles = [n for n in re.findall(r"typedef struct (\w+) \w+;", text) if n not in header.structs]
    for declaration in re.findall(r"RADZ_API\s+(?:RADZ_CHECK\s+)?([^;]+);", text):
        match = re.fullmatch(r"\s*(.*?[\s*])(radz_\w+)\((.*)\)\s*", declaration, flags=re.S)
        assert match, declaration
        result, name, parameters = match.groups()
        header.functions[name] = [tidy(result), *parameter_types(parameters)]
    return header
