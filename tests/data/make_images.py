"""Makes tests/data/images: one picture of every PNG and JPEG kind with the pixels PIL gives, broken ones with the error
they must meet, and what transformers' image processors make of films of odd shapes.

    python make_images.py [folder with NIH films of 64 px]

Needs pillow, numpy, transformers (versions of the last run are in images/VERSIONS) and cc with libjpeg for the one
arithmetic-coded file. The library and its tests never need Python.
SPDX-License-Identifier: Apache-2.0"""

import io
import os
import struct
import subprocess
import sys
import tempfile
import zlib

import numpy as np
import PIL
from PIL import Image, ImageOps

HERE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "images")
good, bad = [], []
pixels = bytearray()


def noise(h, w, c=3):
    """Sharp and smooth at once; test_preprocess.c has the same formula."""
    y, x, k = np.meshgrid(np.arange(h), np.arange(w), np.arange(c), indexing="ij")
    return ((x * 37) ^ (y * 91) ^ (k * 53) ^ (x * y >> 2)).astype(np.int64) & 255


def smooth(h, w, c=3):
    y, x, k = np.meshgrid(np.arange(h), np.arange(w), np.arange(c), indexing="ij")
    return (127 + 90 * np.sin((x + 3 * k) / 2.7) + 37 * np.cos(y * (k + 1) / 3.1)).astype(np.uint8)


# ---- PNG ---------------------------------------------------------------------------------------


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def pack_row(row, depth):
    """row: (w, channels) integers -> bytes"""
    flat = row.reshape(-1)
    if depth == 16:
        return flat.astype(">u2").tobytes()
    if depth == 8:
        return flat.astype(np.uint8).tobytes()
    bits = ((flat[:, None] >> np.arange(depth - 1, -1, -1)) & 1).astype(np.uint8)
    return np.packbits(bits.reshape(-1)).tobytes()


ADAM7 = [(0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2)]


def scanlines(samples, depth, interlace):
    parts = [samples]
    if interlace:
        parts = [samples[y0::dy, x0::dx] for x0, y0, dx, dy in ADAM7]
    return b"".join(
        b"\0" + pack_row(row, depth) for part in parts if part.shape[0] and part.shape[1] for row in part
    )


def png(samples, color, depth, interlace=0, plte=None, extra=b"", width=None, height=None):
    h, w = samples.shape[:2]
    ihdr = struct.pack(">IIBBBBB", width or w, height or h, depth, color, 0, 0, interlace)
    data = zlib.compress(scanlines(samples, depth, interlace), 9)
    out = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", ihdr) + extra
    if plte is not None:
        out += chunk(b"PLTE", plte)
    return out + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def save(name, data):
    with open(os.path.join(HERE, name), "wb") as f:
        f.write(data)


def keep(name, data, want, channels, bits=8, tolerance=0):
    """want: (h, w, 3) or, for 16 bits, (h, w, channels)"""
    save(name, data)
    h, w = want.shape[:2]
    good.append(f"{name}\t{w}\t{h}\t{channels}\t{bits}\t{tolerance}\t{len(pixels)}")
    pixels.extend(want.astype(np.uint8 if bits == 8 else "<u2").tobytes())


def pil_rgb(data):
    return np.array(ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert("RGB"))


def make_pngs():
    h, w = 7, 13
    palette = bytes(int(v) for v in noise(256, 1)[:, 0].reshape(-1))
    channels = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
    names = {0: "gray", 2: "rgb", 3: "palette", 4: "graya", 6: "rgba"}
    for color, depths in {0: (1, 2, 4, 8, 16), 2: (8, 16), 3: (1, 2, 4, 8), 4: (8, 16), 6: (8, 16)}.items():
        for depth in depths:
            for interlace in (0, 1):
                n = channels[color]
                s = noise(h, w, n) if depth < 16 else noise(h, w, n) * 256 + noise(h, w, n)[::-1]
                s = s & ((1 << depth) - 1)
                plte = palette[: 3 << depth] if color == 3 else None
                data = png(s, color, depth, interlace, plte)
                shown = pil_rgb(data) if depth < 16 or color != 0 else None
                out = 3 if color in (2, 3, 6) else 1
                if depth == 16:
                    want = s[:, :, :out]
                    if shown is not None:
                        assert np.abs(shown.astype(int) - (want >> 8)).max() == 0
                else:
                    want = shown
                keep(f"{names[color]}{depth}{'_i' if interlace else ''}.png", data, want, out, 16 if depth == 16 else 8)
    s = noise(h, w, 1) & 15
    trns = chunk(b"tRNS", bytes([0, 128, 255]))
    data = png(s, 3, 4, 0, palette[:48])
    at = data.index(b"IDAT") - 4
    data = data[:at] + trns + data[at:]
    keep("palette4_trns.png", data, pil_rgb(data), 3)
    g = noise(h, w, 1)
    data = png(g, 0, 8, extra=chunk(b"gAMA", struct.pack(">I", 10000)) + chunk(b"tRNS", b"\0\x07"))
    keep("gray8_gamma_trns.png", data, pil_rgb(data), 1)
    bomb = zlib.compress(b"\0" * 10_000_000, 9)
    for name, kind, head in (("ztxt", b"zTXt", b"Comment\0\0"), ("iccp", b"iCCP", b"icc\0\0")):
        data = png(g, 0, 8, extra=chunk(kind, head + bomb))
        keep(f"gray8_{name}_bomb.png", data, np.repeat(g, 3, 2), 1)
    one = np.array([[[77]]])
    keep("gray8_1x1.png", png(one, 0, 8), np.repeat(one, 3, 2), 1)
    data = png(np.array([[[5]] * 9]).reshape(9, 1, 1), 0, 8, 1)
    keep("gray8_1x9_i.png", data, pil_rgb(data), 1)


def spoil(name, data, status, words):
    save(name, data)
    bad.append(f"{name}\t{status}\t{words}")


def make_bad_pngs():
    g = noise(7, 13, 1)
    fine = png(g, 0, 8)
    spoil("bad_bomb_30000.png", png(g, 0, 8, width=30000, height=30000), "limit", "30000 x 30000 pixels are over")
    spoil("bad_bomb_65535.png", png(g, 6, 8, width=65535, height=65535), "limit", "65535 x 65535 pixels are over")
    spoil("bad_1x65535.png", png(g, 0, 8, width=1, height=65535), "limit", "1 x 65535 pixels are over")
    spoil("bad_9000.png", png(g, 0, 8, width=9000, height=9000), "format", "cannot hold 9000 x 9000 pixels")
    ihdr = struct.pack(">IIBBBBB", 0, 7, 8, 0, 0, 0, 0)
    spoil("bad_0x7.png", fine[:8] + chunk(b"IHDR", ihdr) + fine[33:], "format", "png: ")
    ihdr = struct.pack(">IIBBBBB", 13, 7, 3, 0, 0, 0, 0)
    spoil("bad_depth3.png", fine[:8] + chunk(b"IHDR", ihdr) + fine[33:], "format", "png: ")
    spoil("bad_palette.png", png(g & 15, 3, 4, 0, bytes(range(30))), "format", "the palette has 10")
    spoil("bad_no_palette.png", png(g & 15, 3, 4), "format", "png: ")
    crc = bytearray(fine)
    crc[29] ^= 1
    spoil("bad_ihdr_crc.png", bytes(crc), "format", "CRC")
    crc = bytearray(fine)
    crc[-13] ^= 1
    spoil("bad_idat_crc.png", bytes(crc), "format", "CRC")
    text = bytearray(png(g, 0, 8, extra=chunk(b"tEXt", b"Comment\0abc")))
    text[33 + 8 + 3] ^= 1
    spoil("bad_text_crc.png", bytes(text), "format", "CRC")
    z = bytearray(zlib.compress(scanlines(g, 8, 0), 9))
    z[-1] ^= 1  # the checksum of the pixels inside a chunk whose own checksum is right
    at = fine.index(b"IDAT") - 4
    spoil("bad_adler.png", fine[:at] + chunk(b"IDAT", bytes(z)) + chunk(b"IEND", b""), "format", "incorrect data check")
    z = chunk(b"IDAT", bytes(z[:-4])) + chunk(b"IDAT", bytes(z[-4:]))
    spoil("bad_adler_apart.png", fine[:at] + z + chunk(b"IEND", b""), "format", "the checksum of the pixel data")
    short = zlib.compress(scanlines(g[:5], 8, 0), 9)
    spoil("bad_rows_missing.png", fine[:at] + chunk(b"IDAT", short) + chunk(b"IEND", b""), "format", "png: ")
    spoil("bad_no_idat.png", fine[:at] + chunk(b"IEND", b""), "format", "png: ")
    spoil("bad_filter.png", fine[:at] + chunk(b"IDAT", zlib.compress(b"\x09" * 98)) + chunk(b"IEND", b""), "format", "png: ")
    spoil("bad_critical.png", fine[:at] + chunk(b"ABCD", b"x") + fine[at:], "format", "png: ")


# ---- JPEG -----------------------------------------------------------------------------------------


def jpeg(image, **options):
    f = io.BytesIO()
    image.save(f, "JPEG", **{"quality": 90, **options})
    return f.getvalue()


def keep_jpeg(name, data, channels):
    keep(name, data, pil_rgb(data), channels, 8, 1)


ARITHMETIC = r"""
#include <stdio.h>
#include <jpeglib.h>
int main(int argc, char **argv)
{
    struct jpeg_compress_struct c; struct jpeg_error_mgr e; unsigned char rows[64 * 64 * 3]; JSAMPROW row;
    int w = 19, h = 21, n = 3; FILE *in = fopen(argv[1], "rb"), *out = fopen(argv[2], "wb");
    if (argc < 3 || fread(rows, 1, (size_t)(w * h * n), in) < (size_t)(w * h * n)) return 1;
    c.err = jpeg_std_error(&e); jpeg_create_compress(&c); jpeg_stdio_dest(&c, out);
    c.image_width = w; c.image_height = h; c.input_components = n; c.in_color_space = JCS_RGB;
    jpeg_set_defaults(&c); c.arith_code = TRUE; jpeg_start_compress(&c, TRUE);
    while (c.next_scanline < c.image_height) {
        row = rows + c.next_scanline * (unsigned)(w * n); jpeg_write_scanlines(&c, &row, 1);
    }
    jpeg_finish_compress(&c); fclose(out); return 0;
}
"""


def arithmetic(rgb):
    with tempfile.TemporaryDirectory() as d:
        path = lambda name: os.path.join(d, name)
        open(path("a.c"), "w").write(ARITHMETIC)
        open(path("in"), "wb").write(rgb.tobytes())
        subprocess.run(["cc", "-o", path("a"), path("a.c"), "-ljpeg"], check=True)
        subprocess.run([path("a"), path("in"), path("out")], check=True)
        return open(path("out"), "rb").read()


def exif(orientation, order="II", kind=3):
    e = "<" if order == "II" else ">"
    value = struct.pack(e + "HH", orientation, 0) if kind == 3 else struct.pack(e + "I", orientation)
    tiff = order.encode() + struct.pack(e + "HI", 42, 8)
    tiff += struct.pack(e + "H", 2) + struct.pack(e + "HHII", 0x0100, 3, 1, 0)
    tiff += struct.pack(e + "HHI", 0x0112, kind, 1) + value + struct.pack(e + "I", 0)
    return b"Exif\0\0" + tiff


def segments(data):
    """[(marker, at, end)] up to the first scan"""
    at, out = 2, []
    while data[at + 1] != 0xDA:
        end = at + 2 + struct.unpack(">H", data[at + 2 : at + 4])[0]
        out.append((data[at + 1], at, end))
        at = end
    return out + [(0xDA, at, at + 2 + struct.unpack(">H", data[at + 2 : at + 4])[0])]


def insert(data, marker, body):
    return data[:2] + bytes([0xFF, marker]) + struct.pack(">H", len(body) + 2) + body + data[2:]


def patch(data, marker, offset, value):
    at = next(a for m, a, _ in segments(data) if m == marker) + offset
    return data[:at] + bytes([value]) + data[at + 1 :]


def without(data, marker):
    for m, a, e in reversed(segments(data)):
        if m == marker:
            data = data[:a] + data[e:]
    return data


def many_scans(n):
    """A gray progressive picture whose first scan (DC) comes n times."""
    data = jpeg(Image.fromarray(smooth(8, 8)[:, :, 0]), progressive=True, quality=50)
    marker, at, end = segments(data)[-1]
    data = data[:at] + bytes([0xFF, 0xDA, 0, 8, 1, 1, 0, 0, 0, 0])
    scan = data[at:] + b"\x7f"  # one block: a code for "no difference" and ones to fill the byte
    table = b"\0" + bytes([1] + [0] * 15) + b"\0"
    head = without(data[:at] + data[at:], 0xC4)
    head = head[: head.rindex(b"\xff\xda")] + b"\xff\xc4" + struct.pack(">H", len(table) + 2) + table
    return head + scan * n + b"\xff\xd9"


def make_jpegs():
    rgb, gray = Image.fromarray(smooth(21, 19)), Image.fromarray(smooth(21, 19)[:, :, 0])
    keep_jpeg("gray.jpg", jpeg(gray), 1)
    keep_jpeg("gray_2x2.jpg", patch(jpeg(gray), 0xC0, 11, 0x22), 1)
    keep_jpeg("gray_restart.jpg", jpeg(gray, restart_marker_blocks=1), 1)
    keep_jpeg("gray_progressive.jpg", jpeg(gray, progressive=True), 1)
    for name, subsampling in (("444", 0), ("422", 1), ("420", 2)):
        keep_jpeg(f"rgb_{name}.jpg", jpeg(rgb, subsampling=subsampling), 3)
        keep_jpeg(f"rgb_{name}_progressive.jpg", jpeg(rgb, subsampling=subsampling, progressive=True), 3)
    keep_jpeg("rgb_optimized.jpg", jpeg(rgb, optimize=True), 3)
    keep_jpeg("rgb_restart.jpg", jpeg(rgb, restart_marker_rows=1), 3)
    keep_jpeg("adobe_rgb.jpg", jpeg(rgb, keep_rgb=True), 3)
    keep_jpeg("arithmetic.jpg", arithmetic(smooth(21, 19)), 3)
    cmyk = Image.fromarray(np.concatenate([smooth(21, 19), smooth(21, 19, 4)[:, ::-1, 3:]], 2), "CMYK")
    data = jpeg(cmyk, subsampling=0)
    keep_jpeg("cmyk_adobe.jpg", data, 3)
    keep_jpeg("ycck_adobe.jpg", patch(data, 0xEE, 15, 2), 3)
    keep_jpeg("cmyk_plain.jpg", without(data, 0xEE), 3)
    for i in range(1, 9):
        order = "II" if i % 2 else "MM"
        keep_jpeg(f"orientation_{i}.jpg", insert(jpeg(rgb if i < 5 else gray), 0xE1, exif(i, order)), 3 if i < 5 else 1)
    plain = jpeg(rgb)
    for name, body in (("9", exif(9)), ("cut", exif(6)[:28]), ("far", exif(6)[:10] + b"\xff\xff\xff\x7f" + exif(6)[14:])):
        keep(f"orientation_{name}.jpg", insert(plain, 0xE1, body), pil_rgb(plain), 3, 8, 1)
    keep("trailing.jpg", plain + b"trailing bytes", pil_rgb(plain), 3, 8, 1)
    data = many_scans(100)
    keep_jpeg("scans_100.jpg", data, 1)


def make_bad_jpegs():
    rgb, gray = Image.fromarray(smooth(21, 19)), Image.fromarray(smooth(21, 19)[:, :, 0])
    fine, fine_gray = jpeg(rgb), jpeg(gray)
    spoil("bad_scans_1000.jpg", many_scans(1000), "limit", "more than 100 scans")
    spoil("bad_12bit.jpg", patch(fine, 0xC0, 4, 12), "unsupported", "12-bit samples")
    spoil("bad_lossless.jpg", patch(fine, 0xC0, 1, 0xC3), "unsupported", "SOF")
    spoil("bad_no_dht.jpg", without(fine, 0xC4), "format", "Huffman")
    spoil("bad_no_dqt.jpg", without(fine, 0xDB), "format", "jpeg: ")
    spoil("bad_no_sof.jpg", without(fine, 0xC0), "format", "jpeg: ")
    spoil("bad_two_sof.jpg", insert(fine, 0xC0, fine[segments(fine)[3][1] + 4 : segments(fine)[3][2]]), "format", "jpeg: ")
    spoil("bad_height_0.jpg", patch(patch(fine, 0xC0, 5, 0), 0xC0, 6, 0), "format", "jpeg: ")
    spoil("bad_width_0.jpg", patch(patch(fine, 0xC0, 7, 0), 0xC0, 8, 0), "format", "jpeg: ")
    big = patch(patch(fine, 0xC0, 5, 0xFF), 0xC0, 6, 0xFF)
    spoil("bad_height_65535.jpg", big, "limit", "jpeg: ")
    huge = patch(patch(patch(patch(fine, 0xC0, 5, 0x75), 0xC0, 6, 0x30), 0xC0, 7, 0x75), 0xC0, 8, 0x30)
    spoil("bad_30000.jpg", huge, "limit", "30000 x 30000 pixels are over")
    wide = patch(patch(patch(patch(fine, 0xC0, 5, 0x23), 0xC0, 6, 0x28), 0xC0, 7, 0x23), 0xC0, 8, 0x28)
    spoil("bad_9000.jpg", wide, "format", "truncated or corrupt")
    few = patch(patch(patch(arithmetic(smooth(21, 19)), 0xC9, 5, 0), 0xC9, 6, 235), 0xC9, 7, 250)
    spoil("bad_arithmetic_64019.jpg", few, "format", "too short for its size")
    spoil("bad_taller.jpg", patch(fine, 0xC0, 6, 121), "format", "truncated or corrupt")
    spoil("bad_shorter.jpg", patch(fine_gray, 0xC0, 6, 5), "format", "truncated or corrupt")
    spoil("bad_component.jpg", patch(fine, 0xDA, 5, 9), "format", "jpeg: ")
    spoil("bad_sos_count.jpg", patch(fine, 0xDA, 4, 4), "format", "jpeg: ")
    spoil("bad_sampling.jpg", patch(fine, 0xC0, 11, 0x00), "format", "jpeg: ")
    at = next(a for m, a, _ in segments(fine) if m == 0xC0)
    sof = bytes([0xFF, 0xC0, 0, 14, 8, 0, 21, 0, 19, 2, 1, 0x11, 0, 2, 0x11, 1])
    sos = bytes([0xFF, 0xDA, 0, 10, 2, 1, 0, 2, 0x11, 0, 63, 0])
    end = segments(fine)[-1]
    two = fine[:at] + sof + fine[segments(fine)[3][2] : end[1]] + sos + fine[end[2] :]
    spoil("bad_two_components.jpg", two, "unsupported", "2 components")
    middle = (segments(fine)[-1][2] + len(fine)) // 2
    spoil("bad_marker_inside.jpg", fine[:middle] + b"\xff\xd9" + fine[middle:], "format", "truncated or corrupt")
    spoil("bad_restart.jpg", (lambda d: d.replace(b"\xff\xd1", b"\xff\xd5", 1))(jpeg(gray, restart_marker_blocks=1)), "format", "truncated or corrupt")


# ---- Real films ------------------------------------------------------------------------------------


def make_films(folder):
    """NIH Clinical Center, ChestX-ray14 (Wang et al. 2017)"""
    for name in ("00000005_006", "00000008_001"):
        with open(os.path.join(folder, name + ".png"), "rb") as f:
            data = f.read()
        keep(f"nih64_{name}.png", data, pil_rgb(data), 3)
        data = jpeg(Image.open(io.BytesIO(data)).convert("L"), quality=80)
        keep_jpeg(f"nih64_{name}.jpg", data, 1)


# ---- Turned PNGs ------------------------------------------------------------------------------------


def make_turned_pngs():
    h, w = 7, 13
    palette = bytes(int(v) for v in noise(16, 1)[:, 0].reshape(-1))
    gray, deep = noise(h, w, 1), noise(h, w, 1) * 256 + noise(h, w, 1)[::-1]
    kinds = [(gray, 0, 8, None, 1), (noise(h, w), 2, 8, None, 3), (deep, 0, 16, None, 1), (gray & 15, 3, 4, palette, 3)]
    for i in range(1, 9):
        s, color, depth, plte, out = kinds[i % 4]
        data = png(s, color, depth, i % 2, plte)
        at = data.index(b"IDAT") - 4 if i < 5 else data.index(b"IEND") - 4
        data = data[:at] + chunk(b"eXIf", exif(i, "II" if i % 3 else "MM")[6:]) + data[at:]
        turned = ImageOps.exif_transpose(Image.open(io.BytesIO(data)))
        want = np.array(turned)[:, :, None] if depth == 16 else np.array(turned.convert("RGB"))
        keep(f"orientation_{i}.png", data, want, out, 16 if depth == 16 else 8)
    data = png(gray, 0, 8, extra=chunk(b"eXIf", exif(6)[6:20]))
    keep("orientation_cut.png", data, np.repeat(gray, 3, 2), 1)


# ---- Preprocessing ------------------------------------------------------------------------------------

# width, height, channels, pad, shortest edge, size of the result
SHAPES = [
    (1, 1, 1, 0, 24, 24), (50, 1, 1, 0, 24, 24), (1, 50, 3, 0, 24, 24), (2, 3, 3, 0, 24, 24), (640, 599, 1, 0, 24, 24),
    (500, 20, 3, 0, 24, 24), (20, 500, 1, 0, 24, 24), (90, 400, 3, 0, 24, 24), (24, 24, 1, 0, 24, 24),
    (40, 30, 3, 0, 20, 24), (30, 41, 1, 0, 31, 24), (101, 77, 3, 1, 24, 24), (77, 101, 1, 1, 24, 24), (3, 90, 3, 1, 24, 24),
    (90, 2, 1, 1, 30, 24), (1, 5, 1, 1, 24, 24),
]


def make_goldens():
    import transformers
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
    from transformers.models.llava.image_processing_pil_llava import LlavaImageProcessorPil

    rows, blob = [], bytearray()
    for w, h, c, pad, edge, size in SHAPES:
        film = noise(h, w, c).astype(np.uint8)
        image = Image.fromarray(film if c == 3 else film[:, :, 0])
        kind = LlavaImageProcessorPil if pad else CLIPImageProcessorPil
        p = kind(size={"shortest_edge": edge}, crop_size={"height": size, "width": size}, do_rescale=False,
                 do_normalize=False, **({"do_pad": True} if pad else {}))
        out = np.array(p(image, return_tensors="np")["pixel_values"][0])
        assert out.shape == (3, size, size) and out.min() >= 0 and out.max() <= 255
        rows.append(f"{w}\t{h}\t{c}\t{pad}\t{edge}\t{size}\t{len(blob)}")
        blob += out.astype(np.uint8).tobytes()
    table("preprocess.tsv", "width height channels pad shortest_edge size offset", rows)
    save("preprocess.bin", bytes(blob))

    rows, blob = [], bytearray()
    for w, h, bits, dw, dh in [(37, 21, 8, 11, 9), (5, 7, 8, 19, 23), (30, 200, 8, 25, 20), (37, 21, 16, 11, 9), (9, 8, 16, 20, 17)]:
        a = noise(h, w, 1)[:, :, 0]
        a = a.astype(np.uint8) if bits == 8 else (a * 256 + a[::-1]).astype(np.uint16)
        out = np.array(Image.fromarray(a).resize((dw, dh), Image.BICUBIC))
        rows.append(f"{w}\t{h}\t{bits}\t{dw}\t{dh}\t{len(blob)}")
        blob += out.astype("<u2").tobytes()
    table("resize.tsv", "width height bits new_width new_height offset", rows)
    save("resize.bin", bytes(blob))
    save("VERSIONS", f"pillow {PIL.__version__}\nnumpy {np.__version__}\ntransformers {transformers.__version__}\n".encode())


def table(name, head, rows):
    save(name, ("# " + head.replace(" ", "\t") + "\n" + "\n".join(rows) + "\n").encode())


if __name__ == "__main__":
    os.makedirs(HERE, exist_ok=True)
    make_pngs()
    make_bad_pngs()
    make_jpegs()
    make_bad_jpegs()
    if len(sys.argv) > 1:
        make_films(sys.argv[1])
    make_turned_pngs()
    table("good.tsv", "file width height channels bits tolerance offset", good)
    table("bad.tsv", "file status words", bad)
    save("pixels.bin", bytes(pixels))
    make_goldens()
