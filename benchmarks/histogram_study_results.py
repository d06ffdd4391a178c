"""What the histogram study knows so far, in a JSON file that survives a kill, and what it holds for."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from histogram_study_models import Effort

from histcxr.exceptions import InputError
from histcxr.study.cohort import Cohort

Record = dict[str, Any]


class Results:
    """What is known so far: one record a key, on the disk at once.

    Parameters
    ----------
    path : Path
        A JSON file, made when the first record comes.
    study : dict
        Data and settings. A file of another study is refused.

    Raises
    ------
    InputError
        When the file is no result of this study.
    """

    def __init__(self, path: Path, study: Record) -> None:
        self.path, self.study = path, study
        self.records: dict[str, Record] = {}
        if not path.exists():
            return
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            known, records = content["study"], content["results"]
        except (ValueError, KeyError, TypeError) as error:
            raise InputError(
                f"{path} must be a JSON file of this benchmark, and is not ({error!r})"
            ) from error
        for name, value in study.items():
            if known.get(name) != value:
                raise InputError(
                    f"{path} must hold results with {name} {value!r}; it has {known.get(name)!r}: "
                    "give another --json, or remove the file"
                )
        self.records = records

    def add(self, records: dict[str, Record]) -> None:
        """Keep records: the file is replaced as a whole, so a kill leaves the old one or the new one."""
        self.records |= records
        content = {"study": self.study, "results": self.records}
        partial = self.path.with_name(self.path.name + ".partial")
        partial.write_text(json.dumps(content, indent=1, allow_nan=False) + "\n", encoding="utf-8")
        os.replace(partial, self.path)
        for key, record in records.items():
            print(f"{key}: {record['auc']:.4f}", flush=True)


def describe(data: str, parts: Mapping[str, Cohort], effort: Effort, seed: int) -> Record:
    """Say what the results hold for: another description is another study."""
    digest = hashlib.blake2b(digest_size=16)
    for part, cohort in parts.items():
        digest.update(part.encode())
        digest.update(np.ascontiguousarray(cohort.values).tobytes())
        digest.update(cohort.sick.tobytes())
        digest.update("\n".join(map(str, cohort.patients)).encode())
    images = {
        part: {"images": len(cohort), "patients": len(set(cohort.patients)), "sick": int(cohort.sick.sum())}
        for part, cohort in parts.items()
    }
    return {"data": images, "digest": digest.hexdigest(), "effort": asdict(effort), "seed": seed}
