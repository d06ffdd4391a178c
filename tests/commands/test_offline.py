"""No command uses the network or leaves anything behind but its outputs: each runs in a network of its own, traced."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import histcxr

# A line for each command; words in braces are places that the test makes. OUT is the folder that it may write to.
COMMANDS = {
    "triage": "triage {study} -o worklist.csv --report page.html",
    "train": "train {study} -o model.histcxr --zones 2 --bands none --classifier svm",
    "segment": "segment {study} -o lungs",
    "explore": "explore {study} -o look",
}
# Minutes more: what Keras and XGBoost do when they are asked for.
LONG = {
    "train xgboost": COMMANDS["train"].replace("svm", "xgboost"),
    "keras": [
        "-c",
        "import numpy as np; from histcxr.models.lenet import LeNetClassifier; x = np.ones((40, 1, 256), int); "
        "LeNetClassifier(epochs=1, validation_fraction=0).fit(x, np.arange(40) % 2); open('done', 'w')",
    ],
}
# Started, visited on the loopback of its network alone, asked to judge a folder and a file, ended by Ctrl-C.
APP = """
import fcntl, pathlib, socket, struct, sys
from benchmarks.app_visitor import Visitor, app

with socket.socket() as any_socket:  # lo is down in a new network: up, as interfaces(7) and netdevice(7) say
    fcntl.ioctl(any_socket, 0x8914, struct.pack("16sh22x", b"lo", 0x41))
study, *tracer = sys.argv[1:]
image = next(pathlib.Path(study).rglob("*.png"))
with app(pathlib.Path("app.log"), "--keep", "kept", before=tracer) as url, Visitor(url) as visitor:
    for said in (
        visitor.do("", {"Or a folder": study}, "Judge"),
        visitor.do("", {}, "Judge", [("one.png", image.read_bytes())]),
        visitor.do("explore", {"Radiographs": study}, "Explore"),
    ):
        assert "This cannot be done:" not in said, said
"""
# Semaphores are memory under a name, which is taken away at once.
ELSEWHERE = (
    "/dev/shm/sem.",
    "/dev/null",
    "/dev/tty",
    "/proc/self/",
    "/proc/thread-self/",
    "/sys/devices/system/cpu",
)


def needed(name, *trial):
    """Return the path of a program that works here, or skip."""
    found = shutil.which(name)
    if found is None:
        pytest.skip(f"{name} is not installed")
    done = subprocess.run([found, *trial, "true"], capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"{name} is refused here: {done.stderr.strip()[-200:]}")
    return found


@pytest.fixture(scope="module")
def alone():
    """What to put in front of a command: a network without any host."""
    return [needed("unshare", "-rn"), "-rn"]


@pytest.fixture(scope="module")
def traced():
    """What to put in front of a command: a tracer that follows its processes."""
    strace = needed("strace", "-qq", "-o", "/dev/null")
    calls = "trace=connect,sendto,sendmsg,sendmmsg,openat,open,creat,mkdir,mkdirat,rename,renameat,renameat2,unlink"
    return lambda log: [strace, *["-f", "-qq", "-s", "300", "--seccomp-bpf", "-e"], calls, "-o", str(log)]


def hosts_asked(log):
    """Addresses beyond this machine that were spoken to, and files that only look-ups read."""
    lines = re.findall(r"^.*sa_family=AF_INET6?.*$", log, re.MULTILINE)
    lines = [line for line in lines if not re.search(r'"(127\.[\d.]+|::1)"', line)]
    return lines + re.findall(r'^.*"/etc/(?:resolv\.conf|hosts)".*$', log, re.MULTILINE)


def written(log, folder):
    """Files that were opened for writing, from the folder that the command ran in."""
    found = re.findall(
        r'(?:openat\(AT_FDCWD, |open\(|creat\()"([^"]+)", [^)\n]*(?:O_WRONLY|O_RDWR|O_CREAT)', log
    )
    return {os.path.normpath(os.path.join(folder, name)) for name in found if not name.startswith(ELSEWHERE)}


@pytest.mark.parametrize(
    "name", [*COMMANDS, "app", *(pytest.param(name, marks=pytest.mark.all_networks) for name in LONG)]
)
def test_commands_need_no_network_and_leave_only_their_outputs(name, alone, traced, phantoms, tmp_path):
    for module in {"keras": ["keras"], "app": ["streamlit", "websockets"]}.get(name, []):
        pytest.importorskip(module)
    places = {part: tmp_path / part for part in ("out", "home", "config", "cache", "data", "temporary")}
    for place in places.values():
        place.mkdir()
    variables = ("HOME", "XDG_CONFIG_HOME", "XDG_CACHE_HOME", "XDG_DATA_HOME", "TMPDIR")
    named = dict(zip(variables, list(places.values())[1:], strict=True))
    clean = {
        key: value
        for key, value in os.environ.items()
        if not key.startswith(("ORT_", "MPL", "KERAS", "XDG_"))
    }
    clean |= {key: str(value) for key, value in named.items()}
    clean |= {"PYTHONDONTWRITEBYTECODE": "1", "PYTHONPATH": str(Path(histcxr.__file__).parents[1])}
    log = tmp_path / "log"
    if name == "app":
        few = phantoms.study(n_patients=4, layout="flat", masks=False)
        command = [sys.executable, "-c", APP, str(few), *traced(log)]
    else:
        words = (COMMANDS | LONG)[name]
        if isinstance(words, str):
            words = ["-m", "histcxr", *words.format(study=phantoms.study()).split()]
        command = [*traced(log), sys.executable, *words]
    done = subprocess.run(
        [*alone, *command],
        capture_output=True,
        text=True,
        env=clean,
        cwd=places["out"],
    )
    assert done.returncode in (0, 3), done.stderr
    said = log.read_text(errors="replace")
    assert "openat" in said
    assert hosts_asked(said) == []
    allowed = (str(places["out"]), str(places["temporary"]))
    assert [path for path in written(said, places["out"]) if not path.startswith(allowed)] == []
    assert [name for name, place in named.items() if list(place.rglob("*"))] == []
    assert list(places["out"].iterdir()) != []


def test_the_tracer_sees_what_must_not_be(alone, traced, tmp_path):
    code = (
        "import socket, pathlib; pathlib.Path('here').write_text(''); pathlib.Path('/tmp/../tmp').exists(); "
        f"pathlib.Path({str(tmp_path / 'elsewhere')!r}).write_text('')\n"
        "try: socket.create_connection(('192.0.2.1', 80), 1)\nexcept OSError: pass\n"
        "try: socket.gethostbyname('telemetry.example.org')\nexcept OSError: pass\n"
        "socket.socket(socket.AF_INET, socket.SOCK_DGRAM).connect(('127.0.0.1', 9)) if False else None"
    )
    (tmp_path / "out").mkdir()
    log = tmp_path / "log"
    subprocess.run([*alone, *traced(log), sys.executable, "-c", code], cwd=tmp_path / "out", check=True)
    said = log.read_text(errors="replace")
    asked = hosts_asked(said)
    assert any("192.0.2.1" in line for line in asked)
    assert any("resolv.conf" in line or "53" in line for line in asked)
    assert {Path(path).name for path in written(said, tmp_path / "out")} == {"here", "elsewhere"}
