"""Writing phantoms as DICOM files, in every transfer syntax for which a codec is installed.

They name no patient unless told to; contradictions between tags are as welcome as sound files.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

CR = "1.2.840.10008.5.1.4.1.1.1"
"""SOP class of Computed Radiography."""

SYNTAXES = {
    "implicit": "1.2.840.10008.1.2",
    "explicit": "1.2.840.10008.1.2.1",
    "deflated": "1.2.840.10008.1.2.1.99",
    "big endian": "1.2.840.10008.1.2.2",
    "rle": "1.2.840.10008.1.2.5",
    "jpeg": "1.2.840.10008.1.2.4.50",
    "jpeg extended": "1.2.840.10008.1.2.4.51",
    "jpeg lossless": "1.2.840.10008.1.2.4.70",
    "jpeg-ls": "1.2.840.10008.1.2.4.80",
    "jpeg 2000": "1.2.840.10008.1.2.4.90",
}
"""Short names of the transfer syntaxes that can be written. ``"jpeg"`` takes 8 bits only and is not lossless, no more
than ``"jpeg extended"``, which takes 8 or 12.
"""


def encode_dicom(
    pixels: NDArray[Any],
    *,
    bits: int | None = None,
    syntax: str = "explicit",
    signed: bool = False,
    drop: Collection[str] = (),
    file_meta: bool = True,
    tags: Mapping[str, Any] | None = None,
) -> bytes:
    """Encode an image, uint8 or uint16 (height, width) or (height, width, 3) as stored, as a DICOM file.

    ``bits``: stored, from the lowest on, by default all; ``syntax``: a key of :data:`SYNTAXES`; ``signed``: what the
    file says of the bit patterns; ``drop``: keywords taken away at last; ``file_meta``: whether to write preamble and
    meta information; ``tags``: further elements by keyword. ImportError: no pydicom, or no imagecodecs for JPEG-LS,
    JPEG 2000 and the deeper kinds of JPEG.
    """
    import pydicom
    from pydicom.encaps import encapsulate
    from pydicom.filewriter import dcmwrite

    tags, big, stream = dict(tags or {}), syntax == "big endian", io.BytesIO()
    allocated = 8 * pixels.itemsize
    bits = bits or allocated
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pydicom rightly complains of what is asked of it here
        dataset = pydicom.Dataset()
        dataset.SOPClassUID, dataset.SOPInstanceUID, dataset.Modality = CR, "1.2.3.4", "CR"
        dataset.Rows, dataset.Columns = pixels.shape[:2]
        dataset.SamplesPerPixel = 1 if pixels.ndim == 2 else 3
        dataset.PhotometricInterpretation = "MONOCHROME2" if pixels.ndim == 2 else "RGB"
        if pixels.ndim == 3:
            dataset.PlanarConfiguration = 0
        dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = allocated, bits, bits - 1
        dataset.PixelRepresentation = int(signed)
        stored = pixels.astype(pixels.dtype.newbyteorder(">" if big else "<")).tobytes()
        dataset.PixelData = stored + b"\0" * (len(stored) % 2)
        dataset["PixelData"].VR = "OB" if allocated == 8 else "OW"
        dataset.file_meta = pydicom.dataset.FileMetaDataset()
        dataset.file_meta.TransferSyntaxUID = pydicom.uid.UID(SYNTAXES["explicit"])
        if syntax == "rle":
            dataset.compress(SYNTAXES[syntax], generate_instance_uid=False)
        elif syntax.startswith("jpeg"):
            dataset.PixelData = encapsulate([_as_jpeg(pixels, bits, signed, syntax)])
            dataset["PixelData"].VR, dataset["PixelData"].is_undefined_length = "OB", True
        dataset.file_meta.TransferSyntaxUID = pydicom.uid.UID(SYNTAXES[syntax])
        for keyword, value in tags.items():
            setattr(dataset, keyword, value)
        for keyword in drop:
            delattr(dataset, keyword)
        if file_meta:
            dataset.file_meta.MediaStorageSOPClassUID = tags.get("SOPClassUID", CR)
            dataset.file_meta.MediaStorageSOPInstanceUID = tags.get("SOPInstanceUID", "1.2.3.4")
            dataset.save_as(stream, enforce_file_format=True)
        else:
            del dataset.file_meta
            dcmwrite(stream, dataset, implicit_vr=syntax == "implicit", little_endian=not big)
    return stream.getvalue()


def _as_jpeg(pixels: NDArray[Any], bits: int, signed: bool, syntax: str) -> bytes:
    if syntax == "jpeg":
        return cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, 95])[1].tobytes()
    import imagecodecs

    how: dict[str, Any]
    if syntax == "jpeg-ls":
        return bytes(imagecodecs.jpegls_encode(pixels))
    if syntax == "jpeg 2000":
        numbers = pixels.view(f"i{pixels.itemsize}") if signed else pixels
        how = {"level": 0, "codecformat": "j2k", "reversible": True, "bitspersample": bits}
        return bytes(imagecodecs.jpeg2k_encode(numbers, **how))
    how = {"level": 98} if syntax == "jpeg extended" else {"lossless": True}
    return bytes(imagecodecs.jpeg8_encode(pixels, bitspersample=bits, **how))


def lut_item(values: Sequence[int] | NDArray[Any], first: int, bits: int, *, as_words: bool = True) -> Any:
    """A LUT as one item (pydicom.Dataset) of a modality or VOI LUT sequence: entries of ``bits`` bits.

    ``first`` is the stored value that the first entry stands for; ``as_words``: stored as bytes (OW), not numbers (US).
    """
    import pydicom

    item = pydicom.Dataset()
    item.add_new("LUTDescriptor", "US" if first >= 0 else "SS", [len(values) % 2**16, first, bits])
    words = np.asarray(values, "<u2")
    item.add_new("LUTData", "OW" if as_words else "US", words.tobytes() if as_words else words.tolist())
    return item
