"""What can go wrong, by name: exceptions, warnings, and the reason codes of inputs that cannot be judged."""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterable
from enum import StrEnum


class Reason(StrEnum):
    """Why an image could not be judged: a stable code for scripts, with a sentence for the technician.

    The string value is the code (``"mask_empty"``); :attr:`sentence` says what is wrong and what to do.
    """

    NOT_FOUND = "not_found"
    NOT_A_FILE = "not_a_file"
    LINK_LOOP = "link_loop"
    PERMISSION = "permission"
    UNREACHABLE = "unreachable"
    FILE_EMPTY = "file_empty"
    NOT_AN_IMAGE = "not_an_image"
    UNSUPPORTED = "unsupported"
    TRUNCATED = "truncated"
    DAMAGED = "damaged"
    TOO_LARGE = "too_large"
    TOO_COSTLY = "too_costly"
    TOO_SMALL = "too_small"
    COLOUR = "colour"
    BLANK = "blank"
    MODALITY = "modality"
    BODY_PART = "body_part"
    VIEW = "view"
    SEVERAL_FRAMES = "several_frames"
    MASK_MISSING = "mask_missing"
    MASK_UNREADABLE = "mask_unreadable"
    MASK_EMPTY = "mask_empty"
    MASK_TINY = "mask_tiny"
    MASK_INVERTED = "mask_inverted"
    MASK_TOO_LARGE = "mask_too_large"
    MASK_NOT_BINARY = "mask_not_binary"
    LUNGS_NOT_FOUND = "lungs_not_found"
    LUNGS_IMPLAUSIBLE = "lungs_implausible"
    LUNGS_CUT_OFF = "lungs_cut_off"
    POLARITY = "polarity"
    NOT_A_CHEST = "not_a_chest"
    UNLIKE_TRAINING = "unlike_training"
    SCORE_INVALID = "score_invalid"
    OTHER_IMAGE = "other_image"
    UNCERTIFIED_SITE = "uncertified_site"
    UNTESTED_SITE = "untested_site"
    UNEXPECTED = "unexpected"

    @property
    def sentence(self) -> str:
        """What is wrong and what to do about it, in one plain sentence."""
        return _SENTENCES[self]


_SENTENCES = {
    Reason.NOT_FOUND: "the file does not exist; check the path or the link that leads to it",
    Reason.NOT_A_FILE: "this is a pipe, socket or device, not a regular file; export the image to a file",
    Reason.LINK_LOOP: "a symbolic link leads back to itself or to a folder above it; remove the link",
    Reason.PERMISSION: "the file may not be read; ask for read permission",
    Reason.UNREACHABLE: "the object could not be fetched from its store; give the same command again",
    Reason.FILE_EMPTY: "the file holds no bytes; export the image again",
    Reason.NOT_AN_IMAGE: "the content is not an image, whatever the name says; export the image again",
    Reason.UNSUPPORTED: "this kind of image file is not supported; export it as DICOM, PNG, JPEG, TIFF or BMP",
    Reason.TRUNCATED: "the file ends too early, so part of the image is missing; copy or export it again",
    Reason.DAMAGED: "the image data is damaged and cannot be decoded; copy or export it again",
    Reason.TOO_LARGE: "the image has more pixels than any radiograph; check the export settings",
    Reason.TOO_COSTLY: "reading this file would take more time or memory than any radiograph does, or it ended its "
    "decoder; export it again, as PNG or DICOM without compression",
    Reason.TOO_SMALL: "the image is too small to be a radiograph; export it at full size",
    Reason.COLOUR: "the image is in colour, and a radiograph is grey; check that this is a radiograph",
    Reason.BLANK: "the lungs show almost no contrast (all one value); check the exposure or the export",
    Reason.MODALITY: "this is not a plain radiograph made for reading; send the radiograph itself (CR or DX)",
    Reason.BODY_PART: "the file says that it shows another part of the body; check that this is a chest",
    Reason.VIEW: "the file says that this is not a frontal view; send the PA or AP radiograph",
    Reason.SEVERAL_FRAMES: "the file holds several images and names none of them; export one image a file",
    Reason.MASK_MISSING: "there is no lung mask for this image; add one, or have the lungs found (--lungs found)",
    Reason.MASK_UNREADABLE: "the lung mask cannot be read; make the mask again",
    Reason.MASK_EMPTY: "the lung mask marks no pixel at all; segment the image again",
    Reason.MASK_TINY: "the lung mask covers too little of the image to be two lungs; segment the image again",
    Reason.MASK_INVERTED: "the lung mask marks the outside of the lungs; invert the mask",
    Reason.MASK_TOO_LARGE: "the lung mask covers most of the image; segment the image again",
    Reason.MASK_NOT_BINARY: "the lung mask has many grey levels instead of two; check that it is a mask",
    Reason.LUNGS_NOT_FOUND: "no lungs were found in this image; check that it is a frontal chest radiograph",
    Reason.LUNGS_IMPLAUSIBLE: "what was found has not the shape of two lungs; look at the image, or add a lung mask",
    Reason.LUNGS_CUT_OFF: "the lungs reach beyond the edge of the image; send the whole radiograph",
    Reason.POLARITY: "the lungs are brighter than what lies between them; the grey levels seem inverted",
    Reason.NOT_A_CHEST: "the network that finds lungs does not know such an image: turned, cut, lateral, no chest, or "
    "a frontal chest unlike those it learnt from; look at it, or add a lung mask",
    Reason.UNLIKE_TRAINING: "these lungs are unlike all that the model was trained on; a reader must judge",
    Reason.SCORE_INVALID: "the model gave no usable score for this image; report it to the model's maker",
    Reason.OTHER_IMAGE: "another image of this patient is not ruled out; read them together",
    Reason.UNCERTIFIED_SITE: "this folder differs from the hospitals that the thresholds were certified at; a reader "
    "must judge, or certify the model on your own patients",
    Reason.UNTESTED_SITE: "whether this folder is of the hospitals that the thresholds were certified at could not be "
    "tested; a reader must judge, and report it to the model's maker",
    Reason.UNEXPECTED: "an unexpected error stopped this image; report it with the detail given",
}


class HistcxrError(Exception):
    """Base of every error that histcxr raises on purpose."""


class InputError(HistcxrError, ValueError):
    """An argument, table or option is wrong; the message names it, what it must be and what came."""


class UnjudgeableError(HistcxrError):
    """An image cannot be judged. In a batch this becomes a ``review`` row, never a crash and never "normal".

    Parameters
    ----------
    reason : Reason
        The stable code.
    path : path-like
        The file at fault.
    detail : str, optional
        What was found, e.g. ``"20000 x 20000 pixels"``.
    """

    def __init__(self, reason: Reason, path: str | os.PathLike[str] = "", detail: str = "") -> None:
        self.reason = reason
        self.path = os.fspath(path)
        self.detail = detail
        super().__init__(reason, self.path, detail)

    @property
    def explanation(self) -> str:
        """The sentence for the technician, with the detail where there is one; without the file's name."""
        return f"{self.reason.sentence} ({self.detail})" if self.detail else self.reason.sentence

    def __str__(self) -> str:
        return f"{self.path}: {self.explanation}" if self.path else self.explanation


class RadiographError(UnjudgeableError):
    """The image itself cannot be used."""


class MaskError(UnjudgeableError):
    """The lung mask is missing or cannot be right."""


class ModelError(HistcxrError):
    """A saved model is refused: damaged, of a foreign version, or holding something it must not."""


class NoModelError(ModelError, InputError):
    """There is no saved model at the path given."""


class MissingDependencyError(HistcxrError, ImportError):
    """An optional package is needed; the message says what to install."""


class HistcxrWarning(UserWarning):
    """Something a careful reader must know, though the work went on."""


class OutputError(HistcxrError):
    """A result cannot be written: no room, no permission, or another run is at it; nothing written is lost."""


def did_you_mean(word: object, known: Iterable[object]) -> str:
    """Return ``"; did you mean 'x'?"`` for the known word nearest to a mistyped one, "" where none is near."""
    names = {str(name).casefold(): str(name) for name in known}
    near = difflib.get_close_matches(str(word).casefold(), names, n=1, cutoff=0.6)
    return f"; did you mean {names[near[0]]!r}?" if near else ""


def how_to_install(extra: str) -> str:
    """Say how the packages of an extra come in. histcxr is in no registry: it is installed from its source."""
    return f"pip install '.[{extra}]' in the folder of histcxr's source"


def counted(n: int, one: str, several: str = "") -> str:
    """Write a number with its noun, and perhaps its verb, in the right form: 1 image, 2 images."""
    return f"{n} {one if n == 1 else several or one + 's'}"
