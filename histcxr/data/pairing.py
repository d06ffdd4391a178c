"""What the names of files and folders say: which are images, which hold masks, and which mask is whose."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable

from histcxr.exceptions import MaskError, Reason

IMAGE_EXTENSIONS = frozenset({".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".dcm"})
"""Names that end so are images, in upper or lower case; so are names without an extension (DICOM exports)."""

MASK_EXTENSIONS = (".png", ".bmp", ".tif", ".tiff", ".jpg", ".jpeg")
"""Extensions a mask may have, in the order in which they are tried (lower case first, then upper case)."""

_TRIED = MASK_EXTENSIONS + tuple(extension.upper() for extension in MASK_EXTENSIONS)


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


class MaskFinder:
    """Find masks for the images below the folder ``top``; a folder of any size costs no memory.

    ``masks`` is a folder that either mirrors ``top`` or holds all masks side by side; only then is ``images`` asked,
    once, for the names of all images that share them.
    """

    def __init__(
        self, top: str, masks: str | None = None, images: Callable[[], Iterable[str]] = lambda: ()
    ) -> None:
        self._top = top
        self._masks = masks
        self._images = images
        self._folder: str | None = None
        self._places: list[str] = []
        self._shared: frozenset[int] | None = None

    def of(self, folder: str, relative: str, name: str) -> str:
        """Path of the mask of the image ``name`` in ``folder`` (``relative``: seen from ``top``), ``""`` for none.

        MaskError ``mask_missing``: all masks lie side by side and several images have this one's name.
        """
        if folder != self._folder:
            self._places = self._places_for(folder, relative)
            self._folder = folder
        for place in self._places:
            found = _same_stem(place, name)
            if found:
                if relative and place == self._masks and hash(stem_of(name)) in self._shared_stems():
                    detail = f"several images are called {stem_of(name)!r}; let the masks' folders mirror the images'"
                    raise MaskError(Reason.MASK_MISSING, found, detail)
                return found
        return ""

    def _places_for(self, folder: str, relative: str) -> list[str]:
        """Folders that may hold the masks of the images in ``folder``, the nearest first."""
        head = os.path.dirname(relative)
        in_images = os.path.basename(folder).casefold() == "images"
        if self._masks is not None:
            mirrored = [relative, os.path.join(relative, "masks")] if relative else []
            if in_images:
                mirrored += [os.path.join(head, "masks"), *([head] if head else [])]
            found = [os.path.join(self._masks, place) for place in mirrored]
            return [place for place in found if os.path.isdir(place)] or [self._masks]
        beside = os.path.dirname(folder)
        places = [os.path.join(beside, "masks"), os.path.join(beside, "mask")] if in_images else []
        places += [os.path.join(folder, "masks"), os.path.join(folder, "mask")]
        if relative:
            places.append(os.path.join(self._top, "masks", relative))
            if in_images:
                places.append(os.path.join(self._top, "masks", head))
        return [place for place in places if os.path.isdir(place)]

    def _shared_stems(self) -> frozenset[int]:
        """Stems that more than one image has, as hashes: a mask of that name could belong to either."""
        if self._shared is None:
            once: set[int] = set()
            twice: set[int] = set()
            for image in self._images():
                key = hash(stem_of(os.path.basename(image)))
                (twice if key in once else once).add(key)
            self._shared = frozenset(twice)
        return self._shared


def _same_stem(folder: str, name: str) -> str:
    """The mask in ``folder`` with the stem of ``name``."""
    same = os.path.join(folder, name)
    if os.path.splitext(name)[1] in _TRIED and os.path.lexists(same):
        return same
    stem = stem_of(name)
    for extension in _TRIED:
        path = os.path.join(folder, stem + extension)
        if os.path.lexists(path):
            return path
    return ""
