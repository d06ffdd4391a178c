"""What the names of files and folders say: which are images, which hold masks, and what pairs the two."""

from __future__ import annotations

import os

IMAGE_EXTENSIONS = frozenset({".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".dcm"})
"""Names that end so are images, in upper or lower case; so are names without an extension (DICOM exports)."""


def is_image_name(name: str) -> bool:
    """Whether a file of this name is taken for an image."""
    extension = extension_of(name)
    return not extension or extension in IMAGE_EXTENSIONS


def is_mask_folder(name: str) -> bool:
    """Whether a folder of this name holds masks, not images: ``mask``, ``masks``, ``masks_published``, ..."""
    folded = name.casefold()
    return folded in ("mask", "masks") or folded.startswith(("masks_", "masks-"))


def extension_of(name: str) -> str:
    """The extension in lower case; a name that ends in numbers and dots (1.2.840.113) has none."""
    extension = os.path.splitext(name)[1].lower()
    return "" if extension[1:].isdigit() else extension


def stem_of(name: str) -> str:
    """The name without its extension: what an image and its mask share."""
    return os.path.splitext(name)[0] if extension_of(name) else name
