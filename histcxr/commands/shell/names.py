"""Options about names: patients told apart by pseudonyms, files called by keys."""

from __future__ import annotations

import functools
import os
from typing import Any, Final

import click
from click.core import ParameterSource

from histcxr.commands.shell.places import KEYS, OutputPath
from histcxr.commands.shell.terminal import say

SALT_VARIABLE: Final = "HISTCXR_SALT"


def dicom_options(function: Any) -> Any:
    """Facts from the DICOM files themselves, and their patients as pseudonyms that a secret makes."""

    @functools.wraps(function)
    def with_dicom(*args: Any, dicom_tags: bool, salt: str, **others: Any) -> Any:
        source = click.get_current_context().get_parameter_source("salt")
        if source is ParameterSource.COMMANDLINE and not (dicom_tags and salt):
            raise click.BadParameter(
                "must not be empty: without a secret the pseudonyms could be guessed"
                if dicom_tags
                else "is of use with --dicom-tags only",
                param_hint="'--salt'",
            )
        return function(*args, dicom_tags=dicom_tags, salt=salt if dicom_tags else "", **others)

    with_dicom = click.option(
        "--salt",
        envvar=SALT_VARIABLE,
        show_envvar=True,
        default="",
        metavar="TEXT",
        help="A secret: with it --dicom-tags also tells patients apart, by pseudonyms in patient_id. Give the same for "
        "all data that belongs together; set the variable rather than have it in the shell's history.",
    )(with_dicom)
    return click.option(
        "--dicom-tags",
        is_flag=True,
        help="Fill view, laterality, sex, age_group and modality from DICOM files where DATA does not say them.",
    )(with_dicom)


def anonymous_option(function: Any) -> Any:
    """DATA read through links with keyed names, where asked for."""

    @functools.wraps(function)
    def with_names(*args: Any, data: str, anonymous_names: str | None, **others: Any) -> Any:
        if anonymous_names is None:
            return function(*args, data=data, **others)
        from histcxr.data.aliases import alias_files

        if click.get_current_context().get_parameter_source("output") is not ParameterSource.COMMANDLINE:
            raise click.UsageError("--anonymous-names needs --output: the usual name may hold that of DATA")
        salt = os.environ.get(SALT_VARIABLE, "")
        found = alias_files(data, anonymous_names, masks=others.get("masks"), salt=salt)
        others |= {"masks": None} if "masks" in others else {}
        for note in found.notes:
            say(f"- {note}")
        say(
            f"Named {found.files} inputs by keys; {found.skipped} files were no images and are passed over. "
            f"{os.path.join(anonymous_names, KEYS)} leads back: keep it where the images may be kept."
        )
        return function(*args, data=found.listed, **others)

    return click.option(
        "--anonymous-names",
        type=OutputPath("folder", resumes=KEYS),
        metavar="KEYS",
        help="Call files by keyed names in all that is written and said: names of files and folders may be those of "
        f"patients. The folder KEYS leads back, by links and names.csv. The key is {SALT_VARIABLE}, or a secret there.",
    )(with_names)
