#!/usr/bin/env python3
"""Writes tests/data/dicom: one small film, stored in every way that the reader takes, and what dcmtk shows of it.

    python3 tests/data/make_dicom.py          (pydicom 3.0, numpy 2, dcmtk 3.6.7, gdcm 3.0.21)

films.tsv has a line each: file, file with the same pixels uncompressed ("-": this is one), largest difference to it in
levels of 255, options of dcm2pnm ("-": dcmtk does not read it). NAME.pnm is what dcm2pnm makes of NAME.dcm.

SPDX-License-Identifier: Apache-2.0
"""

import pathlib
import subprocess

import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian

OUT = pathlib.Path(__file__).parent / "dicom"
W, H = 24, 16
lines = []


def film(**more):
    """A gradient with a bright disc and a dark corner, 0..1."""
    y, x = np.mgrid[0:H, 0:W]
    v = (x / W + y / H) / 2 + 0.4 * ((x - 15) ** 2 + (y - 6) ** 2 < 20)
    v[:3, :4] = 0
    return np.clip(v, 0, 1)


def dataset(pixels, bits, photometric="MONOCHROME2", stored=None, signed=0, frames=1, planar=None, **more):
    d = Dataset()
    d.file_meta = FileMetaDataset()
    d.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    d.file_meta.MediaStorageSOPClassUID = d.SOPClassUID = "1.2.840.10008.5.1.4.1.1.7"
    d.file_meta.MediaStorageSOPInstanceUID = d.SOPInstanceUID = "1.2.3.4.5"
    d.PatientName, d.PatientID, d.StudyInstanceUID, d.SeriesInstanceUID = "Doe^Jane", "PID-42", "1.2.3", "1.2.3.4"
    d.Modality = "DX"
    d.SamplesPerPixel = 3 if photometric in ("RGB", "YBR_FULL", "YBR_FULL_422") else 1
    d.PhotometricInterpretation = photometric
    if planar is not None:
        d.PlanarConfiguration = planar
    if frames > 1:
        d.NumberOfFrames = frames
    d.Rows, d.Columns = H, W
    d.BitsAllocated, d.BitsStored = bits, stored or bits
    d.HighBit, d.PixelRepresentation = (stored or bits) - 1, signed
    for k, v in more.items():
        setattr(d, k, v)
    d.PixelData = pixels.tobytes()
    d["PixelData"].VR = "OW" if bits > 8 else "OB"
    return d


def show(name, window):
    """What dcmtk makes of it; False: nothing."""
    path = OUT / f"{name}.pnm"
    for program in ("dcm2pnm", "dcmj2pnm", "dcml2pnm"):
        r = subprocess.run([program, "-q", "-O", *window.split(), "+F", "1", OUT / f"{name}.dcm", path], capture_output=True)
        if r.returncode == 0 and path.exists():
            return True
    path.unlink(missing_ok=True)
    return False


def note(name, native="-", most=0, window="-Wm"):
    window = {"-Wm": "", "+Wm": "+Wm"}.get(window, window)
    shown = show(name, window)
    lines.append(f"{name}\t{native}\t{most}\t{(window or 'none') if shown else '-'}")


def save(name, d, window="-Wm"):
    d.save_as(OUT / f"{name}.dcm", enforce_file_format=True)
    note(name, window=window)


def convert(name, native, command, most=0, window="-Wm"):
    subprocess.run([*command.split(), OUT / f"{native}.dcm", OUT / f"{name}.dcm"], check=True, capture_output=True)
    note(name, native, most, window)


def by_the_standard(name, ybr):
    """PS3.3 C.7.6.3.1.2 has the middle of the colour differences at 128; dcmtk takes 127.5 and is up to 2 levels off."""
    y, b, r = (ybr[..., i].astype(float) - (128 if i else 0) for i in range(3))
    rgb = np.stack([y + 1.402 * r, y - 0.344136 * b - 0.714136 * r, y + 1.772 * b], -1)
    pixels = np.clip(np.floor(rgb + 0.5), 0, 255).astype("u1")
    (OUT / f"{name}.pnm").write_bytes(b"P6\n%d %d\n255\n" % (W, H) + pixels.tobytes())


def natives():
    v = film()
    g8, g16 = (v * 255).astype("u1"), (v * 65535).astype("<u2")
    g12 = (v * 4095).astype("<u2")
    save("gray8", dataset(g8, 8))
    save("gray16", dataset(g16, 16), "+Wm")
    save("gray12", dataset(g12, 16, stored=12), "+Wm")
    save("gray10", dataset((v * 1023).astype("<u2"), 16, stored=10), "+Wm")
    save("mono1", dataset(g12, 16, "MONOCHROME1", stored=12), "+Wm")
    save("signed16", dataset(((v - 0.5) * 60000).astype("<i2"), 16, signed=1), "+Wm")
    save("signed12", dataset(((v - 0.5) * 4000).astype("<i2"), 16, stored=12, signed=1), "+Wm")
    window = {"WindowCenter": "2000", "WindowWidth": "1800"}
    save("linear", dataset(g12, 16, stored=12, **window), "+Wi 1")
    save("sigmoid", dataset(g12, 16, stored=12, VOILUTFunction="SIGMOID", **window), "+Wi 1 +Wfs")
    save("rescaled", dataset(g12, 16, stored=12, RescaleSlope="-2", RescaleIntercept="8190", WindowCenter="4000",
                             WindowWidth="5000"), "+Wi 1")
    item = Dataset()
    item.LUTDescriptor, item.LUTData = [4096, 0, 16], (np.sqrt(np.arange(4096) / 4095) * 65535).astype("<u2").tobytes()
    item["LUTData"].VR = "OW"
    save("voi_lut", dataset(g12, 16, stored=12, VOILUTSequence=[item]), "+Wl 1")
    table = Dataset()
    table.LUTDescriptor, table.ModalityLUTType = [4096, 0, 16], "US"
    table.LUTData, table["LUTData"].VR = (np.arange(4096)[::-1] ** 2 // 300).astype("<u2").tobytes(), "OW"
    save("modality_lut", dataset(g12, 16, stored=12, ModalityLUTSequence=[table]), "+Wm")
    rgb = np.stack([g8, g8[::-1], g8[:, ::-1]], -1)
    save("rgb", dataset(rgb, 8, "RGB", planar=0))
    save("rgb_planes", dataset(np.moveaxis(rgb, -1, 0).copy(), 8, "RGB", planar=1))
    ramp = np.arange(256)
    palette = {}
    for c, entries in (("Red", ramp), ("Green", ramp[::-1]), ("Blue", ramp // 2)):
        palette[f"{c}PaletteColorLookupTableDescriptor"] = [256, 0, 16]
        palette[f"{c}PaletteColorLookupTableData"] = (entries * 257).astype("<u2").tobytes()
    save("palette", dataset(g8, 8, "PALETTE COLOR", **palette))
    save("frames", dataset(np.stack([g8, g8[::-1], g8]), 8, frames=3))
    y = np.stack([g8, 255 - g8, g8[::-1]], -1)
    save("ybr_full", dataset(y, 8, "YBR_FULL", planar=0))
    by_the_standard("ybr_full", y)
    return rgb


def main():
    OUT.mkdir(exist_ok=True)
    for old in OUT.glob("*.[dp][cn]m"):
        old.unlink()
    natives()
    for base, window in (("gray12", "+Wm"), ("rgb", "-Wm")):
        convert(f"{base}_implicit", base, "dcmconv +ti", window=window)
        convert(f"{base}_big", base, "dcmconv +tb", window=window)
        convert(f"{base}_deflated", base, "dcmconv +td", window=window)
        convert(f"{base}_no_meta", base, "dcmconv -F", window="-Wm" if base == "rgb" else "+Wm")
        convert(f"{base}_rle", base, "dcmcrle", window=window)
    convert("gray12_no_preamble_implicit", "gray12", "dcmconv -F +ti", window="+Wm")
    convert("gray8_rle", "gray8", "dcmcrle")
    convert("frames_rle", "frames", "dcmcrle")
    convert("gray8_baseline", "gray8", "dcmcjpeg +eb +q 95", 6)
    convert("rgb_baseline", "rgb", "dcmcjpeg +eb +q 95", 60)
    convert("gray12_extended", "gray12", "dcmcjpeg +ee +q 95", 6, "+Wm")
    convert("frames_baseline", "frames", "dcmcjpeg +eb +q 95", 6)
    for p in range(1, 8):
        convert(f"gray12_lossless{p}", "gray12", f"dcmcjpeg +el +sv {p}", window="+Wm")
    convert("gray8_lossless", "gray8", "dcmcjpeg +e1")
    convert("gray16_lossless", "gray16", "dcmcjpeg +e1", window="+Wm")
    convert("rgb_lossless", "rgb", "dcmcjpeg +e1")
    convert("fragments", "gray12", "dcmcjpeg +e1 +fs 1", window="+Wm")
    convert("gray12_jpegls", "gray12", "dcmcjpls", window="+Wm")
    convert("gray8_jpegls", "gray8", "dcmcjpls")
    convert("rgb_jpegls", "rgb", "dcmcjpls")
    convert("gray8_near", "gray8", "dcmcjpls +en +md 2", 2)
    convert("gray12_j2k", "gray12", "gdcmconv --j2k", window="+Wm")
    convert("gray8_j2k", "gray8", "gdcmconv --j2k")
    convert("rgb_j2k", "rgb", "gdcmconv --j2k")
    convert("signed16_j2k", "signed16", "gdcmconv --j2k", window="+Wm")
    convert("gray8_j2k_lossy", "gray8", "gdcmconv --j2k --irreversible", 6)
    (OUT / "films.tsv").write_text("\n".join(lines) + "\n")


main()
