"""The first DICOM files of a run, met by several threads at once while pydicom is not yet imported."""

import subprocess
import sys

import pytest

from histcxr.phantoms.anatomy import make_phantom

pytest.importorskip("pydicom")

# Imports are slowed down, so that the threads meet inside pydicom, whose modules import each other.
SCRIPT = """
import builtins, sys, threading, time
from histcxr.dicom.radiograph import read_tags
from histcxr.dicom.tags import read_uids
from histcxr.data.radiograph import read_radiograph

real = builtins.__import__

def slow(name, *arguments, **options):
    if name.startswith("pydicom"):
        time.sleep(0.001)
    return real(name, *arguments, **options)

builtins.__import__ = slow
start, found = threading.Barrier(6), []

def work(read, delay):
    start.wait()
    time.sleep(delay)
    try:
        found.append(str(read(sys.argv[1])))
    except Exception as error:
        found.append(f"failed: {error!r}")

readers = (read_radiograph, read_uids, read_tags) * 2
threads = [threading.Thread(target=work, args=(read, 0.03 * i)) for i, read in enumerate(readers)]
[thread.start() for thread in threads]
[thread.join() for thread in threads]
print(len(found), sum("failed" in one for one in found), sum("1.2.840.1" in one for one in found))
print([one for one in found if "failed" in one])
"""


def test_threads_that_meet_while_pydicom_is_imported(make_dicom, tmp_path):
    path = tmp_path / "image.dcm"
    path.write_bytes(make_dicom(make_phantom(1, size=(64, 64)).image, StudyInstanceUID="1.2.840.1"))
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(path)], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.splitlines()[0] == "6 0 2", done.stdout
