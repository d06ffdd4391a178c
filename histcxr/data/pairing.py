"""What the names of files and folders say: which are images, which hold masks, and which mask is whose."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable

from histcxr.exceptions import MaskError, Reason
from histcxr.files import remote
from histcxr.files.remote import Known, Url

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
        self._names: dict[str, dict[str, Known | None]] = {}  # what the folders hold that lie in a store

    def of(self, folder: str, relative: str, name: str) -> str:
        """Path of the mask of the image ``name`` in ``folder`` (``relative``: seen from ``top``), ``""`` for none.

        MaskError ``mask_missing``: all masks lie side by side and several images have this one's name.
        """
        if folder != self._folder:
            before, self._names = self._names, {}
            if isinstance(self._masks, Url) and self._masks in before:
                self._names[self._masks] = before[self._masks]  # of all folders
            self._places = self._places_for(folder, relative)
            self._folder = folder
        for place in self._places:
            found = self._same_stem(place, name)
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
            found = [remote.join(self._masks, place) for place in mirrored]
            return [place for place in found if self._is_folder(place)] or [self._masks]
        beside = remote.split(folder)[0]
        places = [remote.join(beside, "masks"), remote.join(beside, "mask")] if in_images else []
        places += [remote.join(folder, "masks"), remote.join(folder, "mask")]
        if relative:
            places.append(remote.join(self._top, os.path.join("masks", relative)))
            if in_images:
                places.append(remote.join(self._top, os.path.join("masks", head)))
        return [place for place in places if self._is_folder(place)]

    def _is_folder(self, place: str) -> bool:
        return bool(self._held(place)) if isinstance(place, Url) else os.path.isdir(place)

    def _held(self, place: Url) -> dict[str, Known | None]:
        """Return what a folder in a store holds: asked for once, for each answer takes as long as many masks."""
        if place not in self._names:
            self._names[place] = {one.name: one.known for one in remote.listing(place)}
        return self._names[place]

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

    def _same_stem(self, folder: str, name: str) -> str:
        """The mask in ``folder`` with the stem of ``name``."""
        names = [stem_of(name) + extension for extension in _TRIED]
        if os.path.splitext(name)[1] in _TRIED:
            names.insert(0, name)
        if isinstance(folder, Url):
            held = self._held(folder)
            return next((folder.child(one, held[one]) for one in names if one in held), "")
        paths = (os.path.join(folder, one) for one in names)
        return next((path for path in paths if os.path.lexists(path)), "")
