"""Builds the wheel and the source distribution of radz (PEP 517), without anything from the network.

The wheel needs a libradz. In this order:

- RADZ_LIBRARY in the environment: that file goes into the wheel. Nothing else is tried.
- RADZ_BUNDLE=0: none goes in, the system's is used at run time; it must be there now.
- RADZ_BUNDLE=1: the repository's Makefile builds one, which goes in.
- neither: none goes in where the system has a libradz with every function of this binding; else as RADZ_BUNDLE=1.

A wheel with a library in it is for one platform and says so in its tag.

SPDX-License-Identifier: Apache-2.0
"""

from __future__ import annotations

import base64
import csv
import hashlib
import io
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import tempfile
import tomllib
import zipfile
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
PACKAGE = HERE / "src" / "radz"
# What the library is built from, in a checkout; `native` holds it in a source distribution.
SOURCES = ("Makefile", "LICENSE", "include", "lib", "tools/deps")
EPOCH = (1980, 1, 1, 0, 0, 0)


class BuildError(SystemExit):
    """Ends the build with a line that pip shows."""


# ---- Metadata ------------------------------------------------------------------------------------


def project() -> dict[str, Any]:
    with open(HERE / "pyproject.toml", "rb") as file:
        found: dict[str, Any] = tomllib.load(file)["project"]
    return found


def metadata() -> str:
    p = project()
    lines = [
        "Metadata-Version: 2.1",
        f"Name: {p['name']}",
        f"Version: {p['version']}",
        f"Summary: {p['description']}",
        f"License: {p['license']}",
        f"Requires-Python: {p['requires-python']}",
        "Classifier: Operating System :: POSIX :: Linux",
        "Description-Content-Type: text/markdown",
    ]
    for extra, needs in p["optional-dependencies"].items():
        lines.append(f"Provides-Extra: {extra}")
        lines += [f"Requires-Dist: {need} ; extra == '{extra}'" for need in needs]
    return "\n".join(lines) + "\n\n" + (HERE / "README.md").read_text(encoding="utf-8")


# ---- The library ---------------------------------------------------------------------------------


def soname() -> str:
    return f"libradz.so.{project()['version'].split('.')[0]}"


def problem_of(library: str) -> str | None:
    """Why the binding cannot use a library; None: it can. Asked of another process, which may load what it likes."""
    names = re.findall(r'^    "(radz_\w+)": \(', (PACKAGE / "_abi.py").read_text(encoding="utf-8"), re.M)
    code = (
        "import ctypes, sys\n"
        "try: lib = ctypes.CDLL(sys.argv[1])\n"
        "except OSError as error: sys.exit(str(error))\n"
        "absent = [n for n in sys.argv[2:] if not hasattr(lib, n)]\n"
        "if absent: sys.exit('it has no ' + ', '.join(absent[:3]))\n"
    )
    done = subprocess.run([sys.executable, "-c", code, library, *names], capture_output=True, text=True, check=False)
    return None if done.returncode == 0 else done.stderr.strip() or "it cannot be loaded"


def source_root() -> Path | None:
    for root in (HERE / "native", HERE.parent.parent):
        if (root / "Makefile").exists() and (root / "include" / "radz.h").exists():
            return root
    return None


def make_library(out: Path) -> Path:
    """Builds libradz with its own Makefile into out."""
    root = source_root()
    if root is None:
        raise BuildError("radz: no libradz on this system, and no sources to build one from")
    # Not as a part of the make that may have called us.
    env = {k: v for k, v in os.environ.items() if k not in ("MAKEFLAGS", "MAKELEVEL", "MFLAGS", "BUILD")}
    command = ["make", "-C", str(root), "lib", f"O={out}"]
    print("radz: building libradz:", " ".join(command), flush=True)
    try:
        done = subprocess.run(
            command, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
        )
    except OSError as error:
        raise BuildError(f"radz: cannot run make ({error}): install make and a C compiler") from error
    if done.returncode != 0:
        tail = "\n".join(done.stdout.splitlines()[-15:])
        raise BuildError(
            f"{tail}\nradz: libradz did not build. It needs a C compiler, make, pkg-config, libpng, libjpeg-turbo, "
            "zlib and jansson; on Debian: apt-get install build-essential pkg-config libpng-dev libjpeg-dev zlib1g-dev "
            "libjansson-dev"
        )
    return out / soname()


def library_for_wheel(work: Path) -> Path | None:
    """The file that goes into the wheel; None: the system's library is used."""
    chosen, bundle = os.environ.get("RADZ_LIBRARY"), os.environ.get("RADZ_BUNDLE")
    if bundle not in (None, "", "0", "1"):
        raise BuildError(f"radz: RADZ_BUNDLE is '{bundle}': expected 0 or 1")
    if chosen is not None:
        why = problem_of(chosen) if os.path.isfile(chosen) else "there is no such file"
        if why:
            raise BuildError(f"radz: RADZ_LIBRARY '{chosen}': {why}")
        return Path(chosen)
    if bundle != "1":
        why = problem_of(soname())
        if why is None:
            print(f"radz: using the system's {soname()}", flush=True)
            return None
        if bundle == "0":
            raise BuildError(f"radz: RADZ_BUNDLE=0, but the system's {soname()} will not do: {why}")
        print(f"radz: the system's {soname()} will not do: {why}", flush=True)
    built = make_library(work)
    why = problem_of(str(built))
    if why:
        raise BuildError(f"radz: {built}: {why}")
    return built


def stripped(library: Path, work: Path) -> Path:
    """A copy without debug information, where there is a strip."""
    copy = work / soname()
    shutil.copyfile(library.resolve(), copy.with_suffix(".copy"))
    copy.with_suffix(".copy").replace(copy)
    strip = shutil.which("strip")
    if strip:
        subprocess.run([strip, "--strip-unneeded", str(copy)], check=False, capture_output=True)
    return copy


# ---- Wheel ---------------------------------------------------------------------------------------


class Wheel:
    """A wheel that is being written."""

    def __init__(self, directory: Path, tag: str) -> None:
        p = project()
        self.info = f"{p['name']}-{p['version']}.dist-info"
        self.name = f"{p['name']}-{p['version']}-{tag}.whl"
        self._tag = tag
        self._zip = zipfile.ZipFile(directory / self.name, "w", zipfile.ZIP_DEFLATED)
        self._record: list[tuple[str, str, str]] = []

    def add(self, name: str, data: bytes, mode: int = 0o644) -> None:
        entry = zipfile.ZipInfo(name, EPOCH)
        entry.external_attr = (0o100000 | mode) << 16
        entry.compress_type = zipfile.ZIP_DEFLATED
        self._zip.writestr(entry, data)
        digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
        self._record.append((name, f"sha256={digest}", str(len(data))))

    def finish(self) -> str:
        pure = "true" if self._tag.endswith("-any") else "false"
        text = f"Wheel-Version: 1.0\nGenerator: build_radz\nRoot-Is-Purelib: {pure}\nTag: {self._tag}\n"
        self.add(f"{self.info}/METADATA", metadata().encode())
        self.add(f"{self.info}/WHEEL", text.encode())
        licence = next((f for f in (HERE / "native" / "LICENSE", HERE.parent.parent / "LICENSE") if f.exists()), None)
        if licence:
            self.add(f"{self.info}/LICENSE", licence.read_bytes())
        self._record.append((f"{self.info}/RECORD", "", ""))
        rows = io.StringIO()
        csv.writer(rows, lineterminator="\n").writerows(self._record)
        self._zip.writestr(zipfile.ZipInfo(f"{self.info}/RECORD", EPOCH), rows.getvalue())
        self._zip.close()
        return self.name


def platform_tag() -> str:
    return "py3-none-" + re.sub(r"[-.]", "_", sysconfig.get_platform())


def build_wheel(wheel_directory: str, config_settings: object = None, metadata_directory: str | None = None) -> str:
    with tempfile.TemporaryDirectory(prefix="radz-") as temporary:
        work = Path(temporary)
        library = library_for_wheel(build_folder(work))
        wheel = Wheel(Path(wheel_directory), "py3-none-any" if library is None else platform_tag())
        for file in sorted(PACKAGE.iterdir()):
            if file.suffix in (".py", ".typed"):
                wheel.add(f"radz/{file.name}", file.read_bytes())
        if library is not None:
            wheel.add(f"radz/_lib/{soname()}", stripped(library, work).read_bytes(), 0o755)
        return wheel.finish()


def build_folder(otherwise: Path) -> Path:
    """Where objects are kept from one build to the next, in a checkout."""
    root = source_root()
    kept = root / "build" / "wheel" if root else None
    try:
        if kept is not None:
            kept.mkdir(parents=True, exist_ok=True)
            return kept
    except OSError:
        pass
    return otherwise / "build"


def build_editable(wheel_directory: str, config_settings: object = None, metadata_directory: str | None = None) -> str:
    """The package stays where it is: a .pth file names it. The library is RADZ_LIBRARY's or the system's."""
    wheel = Wheel(Path(wheel_directory), "py3-none-any")
    wheel.add("radz_editable.pth", f"{PACKAGE.parent}\n".encode())
    return wheel.finish()


def get_requires_for_build_wheel(config_settings: object = None) -> list[str]:
    return []


def get_requires_for_build_editable(config_settings: object = None) -> list[str]:
    return []


# ---- Source distribution -------------------------------------------------------------------------


def build_sdist(sdist_directory: str, config_settings: object = None) -> str:
    """The binding with the library's sources under native/, so that it can be built anywhere."""
    p = project()
    base = f"{p['name']}-{p['version']}"
    root = source_root()
    if root is None:
        raise BuildError("radz: a source distribution needs the repository around bindings/python")
    pairs = [(HERE / name, name) for name in ("pyproject.toml", "build_radz.py", "README.md")]
    pairs += [(f, str(f.relative_to(HERE))) for d in ("src", "tests", "examples") for f in files_below(HERE / d)]
    for source in SOURCES:
        place = root / source
        found = files_below(place) if place.is_dir() else [place]
        pairs += [(f, f"native/{f.relative_to(root)}") for f in found]
    with tarfile.open(Path(sdist_directory) / f"{base}.tar.gz", "w:gz", format=tarfile.PAX_FORMAT) as tar:
        for file, name in sorted(pairs, key=lambda pair: pair[1]):
            tar.add(file, f"{base}/{name}", filter=anonymous)
        info = tarfile.TarInfo(f"{base}/PKG-INFO")
        data = metadata().encode()
        info.size = len(data)
        tar.addfile(info, io.BytesIO(data))
    return f"{base}.tar.gz"


def files_below(folder: Path) -> list[Path]:
    return [f for f in sorted(folder.rglob("*")) if f.is_file() and "__pycache__" not in f.parts]


def anonymous(info: tarfile.TarInfo) -> tarfile.TarInfo:
    info.uid = info.gid = info.mtime = 0
    info.uname = info.gname = ""
    return info


def get_requires_for_build_sdist(config_settings: object = None) -> list[str]:
    return []
