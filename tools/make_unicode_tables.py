"""Writes lib/formats/unicode_tables.h: what the tokenizers of Hugging Face know of Unicode.
SPDX-License-Identifier: Apache-2.0

    python tools/make_unicode_tables.py >lib/formats/unicode_tables.h        (with unicodedata2 16.0.0, and perl)

Three versions of Unicode, because the reference (tokenizers 0.23) has three: its regular expressions (Oniguruma and
Rust's regex) are of 16.0, Rust's char::is_numeric is of 17.0, its NFC of 9.0. Stability rules make the NFC of 9.0 that of
16.0 without the characters that came later; perl knows when each character came.
"""
import subprocess

import unicodedata2 as ucd

ALL = [c for c in range(0x110000) if not 0xD800 <= c < 0xE000]
NUMERIC_17 = [(0x11DE0, 0x11DE9), (0x16FF4, 0x16FF6)]  # Tolong Siki digits, old Chinese numerals


def age_9():
    code = r'for (0..0x10ffff) { next if $_ >= 0xd800 && $_ < 0xe000; print "$_\n" if chr($_) =~ /\p{Present_In: 9.0}/ }'
    return set(map(int, subprocess.run(["perl", "-e", code], capture_output=True, check=True).stdout.split()))


def ranges(value):
    """(first, last, value) of runs with the same true value."""
    out = []
    for c in ALL:
        v = value(c)
        if v and out and out[-1][1] == c - 1 and out[-1][2] == v:
            out[-1][1] = c
        elif v:
            out.append([c, c, v])
    return out


def table(kind, name, comment, rows):
    print(f"\n/* {comment} */\nstatic const {kind} {name}[] = {{")
    line = "   "
    for row in rows:
        text = " {" + ", ".join(row) + "},"
        if len(line) + len(text) > 120:
            print(line)
            line = "   "
        line += text
    print(line + "\n};")


def hexes(*values):
    return [f"0x{v:X}" for v in values]


def category(c):
    return ucd.category(chr(c))


def word(c):
    """\\w: alphabetic, marks, decimal digits, connectors, joiners. Alphabetic beyond L, Nl and marks: circled letters."""
    k = category(c)
    return (k[0] in "LM" or k in ("Nd", "Nl", "Pc") or c in (0x200C, 0x200D) or 0x24B6 <= c <= 0x24E9
            or 0x1F130 <= c <= 0x1F149 or 0x1F150 <= c <= 0x1F169 or 0x1F170 <= c <= 0x1F189)


def main():
    old = age_9()
    pairs, singles, composed = [], [], []
    for c in ALL:
        d = ucd.decomposition(chr(c))
        if not d or d[0] == "<" or c not in old:
            continue
        parts = [int(x, 16) for x in d.split()]
        (pairs if len(parts) == 2 else singles).append((c, *parts))
        if len(parts) == 2 and ucd.normalize("NFC", chr(parts[0]) + chr(parts[1])) == chr(c):
            composed.append((*parts, c))
    assert ucd.unidata_version == "16.0.0"
    print("/* unicode_tables.h - made by tools/make_unicode_tables.py from Unicode 16.0: do not edit.\n"
          " * SPDX-License-Identifier: Apache-2.0 */")
    print("#ifndef RZ_UNICODE_TABLES_H\n#define RZ_UNICODE_TABLES_H\n\n/* clang-format off */")
    table("range", "letters", "General category L*", [hexes(*r[:2]) for r in ranges(lambda c: category(c)[0] == "L")])
    table("range", "numbers", "General category N*", [hexes(*r[:2]) for r in ranges(lambda c: category(c)[0] == "N")])
    table("range", "new_numbers", "N* of Unicode 17.0 that 16.0 has not", [hexes(*r) for r in NUMERIC_17])
    table("range", "words", "\\w of a regular expression", [hexes(*r[:2]) for r in ranges(word)])
    table("class_range", "classes", "Canonical combining class where it is not 0, Unicode 9.0",
          [hexes(*r[:2]) + [str(r[2])] for r in ranges(lambda c: ucd.combining(chr(c)) if c in old else 0)])
    table("decomposition", "decompositions", "Canonical decomposition by one step, Unicode 9.0",
          [hexes(*(p if len(p) == 3 else (*p, 0))) for p in sorted(pairs + singles)])
    table("composition", "compositions", "What composes, Unicode 9.0", [hexes(*c) for c in sorted(composed)])
    print("\n/* clang-format on */\n#endif")


if __name__ == "__main__":
    main()
