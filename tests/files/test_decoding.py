import subprocess
import sys
import textwrap

import cv2
import numpy as np
import pytest

from histcxr.exceptions import InputError
from histcxr.files.decoding import muted_decoders
from histcxr.files.writing import encode_image, write_image
from histcxr.phantoms.anatomy import make_phantom


def run(body):
    code = "import os, sys, threading\nfrom histcxr.files.decoding import muted_decoders\n" + textwrap.dedent(
        body
    )
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stderr


def test_python_is_heard_and_libraries_are_not():
    heard = run("""
        with muted_decoders():
            os.write(2, b"library\\n")
            print("python", file=sys.stderr)
        os.write(2, b"after\\n")
        print("python after", file=sys.stderr)
    """)
    assert heard == "python\nafter\npython after\n"


def test_libjpeg_is_silenced(tmp_path):
    jpeg = encode_image(make_phantom(0).image, ".jpg")
    (tmp_path / "odd.jpg").write_bytes(jpeg[:-2] + b"\x12\x34" * 20 + jpeg[-2:])
    read = f"import cv2; cv2.imread({str(tmp_path / 'odd.jpg')!r})"
    assert "Corrupt JPEG data" in run(read)
    assert run(f"with muted_decoders():\n    {read}") == ""


def test_uses_may_nest_and_overlap():
    heard = run("""
        def hold(started, release):
            with muted_decoders():
                started.set()
                release.wait()
        started, release = threading.Event(), threading.Event()
        thread = threading.Thread(target=hold, args=(started, release))
        with muted_decoders():
            thread.start()
            started.wait()
            with muted_decoders():
                os.write(2, b"library\\n")
        os.write(2, b"library\\n")  # the thread is still inside
        release.set()
        thread.join()
        os.write(2, b"after\\n")
    """)
    assert heard == "after\n"


def test_errors_pass_through():
    heard = run("""
        before = sys.stderr
        try:
            with muted_decoders():
                raise KeyError("x")
        except KeyError:
            os.write(2, b"undone\\n")
        assert sys.stderr is before
    """)
    assert heard == "undone\n"


def test_a_closed_or_replaced_terminal_is_no_trouble():
    run("os.close(2)\nwith muted_decoders():\n    pass")
    run("sys.stderr = None\nwith muted_decoders():\n    os.write(2, b'x')")
    heard = run("""
        import io
        sys.stderr = own = io.StringIO()
        with muted_decoders():
            print("kept", file=sys.stderr)
        assert own.getvalue() == "kept\\n"
    """)
    assert heard == ""


def test_inside_this_process(capfd):
    with muted_decoders():
        cv2.imdecode(np.frombuffer(encode_image(make_phantom(0).image)[:500], np.uint8), cv2.IMREAD_UNCHANGED)
    assert capfd.readouterr().err == ""


def test_writing_needs_a_known_format(tmp_path):
    with pytest.raises(InputError, match="extension must name an image format, such as .png; it is '.xyz'"):
        write_image(tmp_path / "a.xyz", make_phantom(0).image)
