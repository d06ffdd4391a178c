"""What the tests of the app share: names that would be more than names, and a running app."""

import os
import re
import signal
import subprocess
import sys

import pandas as pd
import pytest

HOSTILE = (
    "<img src=x onerror=alert(1)>.png",
    "**bold** _it_ `code` [link](javascript:alert(1)) $x^2$ :smile: :red[x] #h.png",
    ":material/home:.png",
    "\x1b[31mred\x1b[0m.png",
    "\u202egnp.exe.png",
    "=HYPERLINK(1).png",
    "x" * 240 + ".png",
)


@pytest.fixture(scope="session")
def hostile():
    return HOSTILE


@pytest.fixture(scope="session")
def hostile_list(phantoms, tmp_path_factory):
    """A list of twelve radiographs whose labels and sources are hostile."""
    study = phantoms.study(n_patients=20, repeats=0)
    table = pd.read_csv(study / "manifest.csv", dtype=str, keep_default_na=False).head(12)
    for name in ("image", "mask"):
        table[name] = [str(study / one) for one in table[name]]
    table["label"] = [HOSTILE[row % 2] for row in range(len(table))]
    table["source"] = [HOSTILE[2 + row % 4] for row in range(len(table))]
    path = tmp_path_factory.mktemp("list") / "list.csv"
    table.drop(columns="split").to_csv(path, index=False)
    return path


class Running:
    """An app in a process of its own, with an empty home."""

    def __init__(self, folder, *options):
        self.home, self.temporary = folder / "home", folder / "tmp"
        for place in (self.home, self.temporary):
            place.mkdir()
        environment = {**os.environ, "HOME": str(self.home), "TMPDIR": str(self.temporary)}
        for name in ("MPLCONFIGDIR", "KERAS_HOME", "XDG_CONFIG_HOME", "XDG_CACHE_HOME"):
            environment.pop(name, None)
        self.process = subprocess.Popen(
            [sys.executable, "-m", "histcxr", "app", "--port", "0", *options],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment,
            cwd=folder,
            start_new_session=True,
        )
        line = self.process.stdout.readline()
        found = re.search(r"http://127\.0\.0\.1:(\d+)/[\w-]{20,}/", line)
        assert found, line + self.process.stderr.read()
        self.url, self.port = found[0], int(found[1])

    def end(self, number=signal.SIGINT):
        """Send a signal; return exit code and what was said on stderr."""
        if self.process.poll() is None:
            os.killpg(self.process.pid, number)
        _, said = self.process.communicate(timeout=60)
        return self.process.returncode, said


@pytest.fixture(scope="session")
def start(tmp_path_factory):
    pytest.importorskip("streamlit")
    started = []

    def begin(*options):
        started.append(Running(tmp_path_factory.mktemp("running"), *options))
        return started[-1]

    yield begin
    for one in started:
        one.end(signal.SIGKILL)
