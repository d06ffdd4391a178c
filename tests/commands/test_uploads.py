"""Commands by URL: results that go to a store whole or stay here, what is there is kept, and no secret is shown."""

import http.client
import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from histcxr import store
from histcxr.commands import main
from histcxr.files import remote
from histcxr.files.reading import read_file
from histcxr.files.remote import listing, place_of, what_is


def cli(*arguments):
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def names(url):
    return sorted(one.name for one in listing(place_of(url)))


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A folder to be in, and one for what is temporary."""
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def left(here):
    return [path for path in (here / "temporary").rglob("*") if path.is_file()]


def test_a_table_goes_to_a_store_and_nothing_there_is_lost(s3, phantoms, here):
    study = phantoms.study()
    url = s3.fill("extract", study, "in")
    assert cli("extract", study, "-o", "local.csv").exit_code == 0
    done = cli("extract", url, "-o", "s3://extract/out/f.csv", "--json", "s3://extract/out/f.json")
    assert done.exit_code == 0, done.output
    assert "s3://extract/out/f.csv" in done.output
    told = read_file("s3://extract/out/f.csv").replace(f"{url}/".encode(), f"{study}/".encode())
    assert told == Path("local.csv").read_bytes()
    assert json.loads(read_file("s3://extract/out/f.json"))["output"] == "s3://extract/out/f.csv"
    assert left(here) == []
    again = cli("extract", url, "-o", "s3://extract/out/f.csv")
    assert (again.exit_code, "exists; choose another name" in again.output) == (2, True)
    assert cli("extract", url, "-o", "s3://extract/out/f.csv", "--overwrite").exit_code == 0
    foreign = cli(
        "extract", url, "-o", "s3://extract/in/manifest.csv", "--json", "s3://extract/in/manifest.csv"
    )
    assert foreign.exit_code == 2
    (here / "x").mkdir()
    (here / "x" / "page.html").write_text("no page of ours")
    s3.fill("extract", here / "x", "out")
    kept = cli("triage", url, "-o", "w.csv", "--report", "s3://extract/out/page.html", "--overwrite")
    assert (kept.exit_code, "is no earlier result" in kept.output) == (2, True)
    assert read_file("s3://extract/out/page.html") == b"no page of ours"


def test_a_worklist_in_a_store_goes_on_with_its_trail_beside_it(s3, phantoms, here):
    study = phantoms.study(layout="flat")
    url = s3.fill("triage", study, "in")
    assert cli("triage", study, "-o", "local.csv").exit_code in (0, 3)
    done = cli("triage", url, "-o", "s3://triage/out/w.csv")
    assert done.exit_code in (0, 3), done.output
    assert names("s3://triage/out") == ["w.csv", "w.csv.audit.jsonl"]
    assert read_file("s3://triage/out/w.csv") == Path("local.csv").read_bytes()
    again = cli("triage", url, "-o", "s3://triage/out/w.csv")
    assert "24 rows already there" in again.output
    assert "temporary" not in done.output + again.output
    assert left(here) == []


def test_results_that_cannot_be_uploaded_stay_here_and_are_named(s3, phantoms, here, monkeypatch):
    monkeypatch.setattr(remote, "TRIES", 2)
    url = s3.fill("upload", phantoms.study(), "in")
    s3.failing(faults=("error",), refused=("/out/",), methods=("PUT",))
    done = cli("extract", url, "-o", "s3://upload/out/f.csv")
    assert done.exit_code == 1
    assert "could not be uploaded (2 tries" in done.output
    (kept,) = left(here)
    assert str(kept.parent) in done.output.replace("\n", "")
    assert kept.name == "f.csv"
    assert kept.parent.stat().st_mode & 0o077 == 0
    s3.failing()
    assert cli("extract", url, "-o", "s3://upload/out/f.csv").exit_code == 0
    assert what_is(place_of("s3://upload/out/f.csv")) == "file"


def test_a_folder_goes_to_an_empty_place_alone(s3, phantoms, here):
    url = s3.fill("segment", phantoms.study(), "in")
    done = cli("segment", url, "-o", "s3://segment/lungs")
    assert done.exit_code == 0, done.output
    assert names("s3://segment/lungs") == ["masks", "segmentation.csv", "segmentation.json", "sheet.png"]
    again = cli("segment", url, "-o", "s3://segment/lungs")
    assert (again.exit_code, "holds objects" in again.output) == (2, True)
    inside = cli("segment", url, "-o", f"{url}/lungs")
    assert (inside.exit_code, "an input of this command" in inside.output) == (2, True)


def test_a_model_may_lie_in_a_store(s3, phantoms, here):
    model = s3.fill("models", Path(store.__file__).parent / "boxed.histcxr", "m.histcxr")
    assert cli("triage", phantoms.study(), "-m", model, "-o", "w.csv").exit_code in (0, 3)
    none = cli("triage", phantoms.study(), "-m", "s3://models/none", "-o", "x.csv")
    assert (none.exit_code, "no saved model at 's3://models/none'" in none.output) == (2, True)


@pytest.mark.parametrize("url", ["s3://nobucket/in", "s3://sentences/none", "s3://sentences/none.csv"])
def test_nothing_there_is_one_sentence(url, s3, phantoms, here):
    s3.fill("sentences", phantoms.study(), "in")
    for command in ("triage", "extract", "segment", "explore"):
        done = cli(command, url, "-o", "out.csv")
        assert done.exit_code == 2
        assert done.output.startswith("Error: ")
        assert "nothing at" in done.output
        assert done.output.count("\n") == 1


def test_wrong_credentials_are_one_sentence(s3, phantoms, here):
    url = s3.fill("credentials", phantoms.study(), "in")

    def check_keys_after(requests):
        server = http.client.HTTPConnection("127.0.0.1", s3.port, timeout=30)
        server.request("POST", "/moto-api/reset-auth", requests)
        assert server.getresponse().status == 200

    check_keys_after("0")
    try:
        done = cli("triage", url, "-o", "out.csv")
    finally:
        check_keys_after("inf")
    assert done.exit_code == 2
    assert f"'{url}' cannot be read: the file may not be read" in done.output
    assert done.output.count("\n") == 1


def test_a_server_that_is_not_there_is_one_sentence(s3, here, monkeypatch):
    monkeypatch.setattr(remote, "TRIES", 2)
    s3.failing(every=1, faults=("reset",))
    done = cli("triage", "s3://bucket/in", "-o", "out.csv")
    assert done.exit_code == 2
    assert "2 tries" in done.output
    assert done.output.count("\n") == 1


def test_no_secret_is_written_or_said(s3, phantoms, here, monkeypatch):
    """Of presigned URLs in a list, and of URLs with keys, nothing is in any output."""
    url = s3.fill("secrets", phantoms.study(), "in")
    images = sorted(phantoms.study().rglob("images/*.png")) or sorted(phantoms.study().rglob("*.png"))
    server = f"http://127.0.0.1:{s3.proxy.port}/secrets/in"
    lines = [
        f"{server}/{one.relative_to(phantoms.study()).as_posix()}?X-Amz-Signature=HUSH" for one in images[:3]
    ]
    lines += [f"{server}/none.png?X-Amz-Signature=HUSH", f"{server}/lost.png?X-Amz-Signature=HUSH"]
    Path("list.csv").write_text("image\n" + "\n".join(lines) + "\n")
    monkeypatch.setattr(remote, "TRIES", 2)
    s3.failing(faults=("error",), refused=("lost.png",))
    done = cli("triage", "list.csv", "-o", "w.csv", "--report", "p.html", "--json", "w.json")
    assert done.exit_code == 3, done.output
    said = [done.output]
    for bad in (
        "s3://KEY:HUSH@secrets/in",
        f"{url}?X-Amz-Security-Token=HUSH",
        f"{server}/no.png?X-Amz-Signature=HUSH",
    ):
        for place in ("-o", "--masks"):
            done = cli("triage", *((url, place, bad) if place == "--masks" else (bad, "-o", "y.csv")))
            said.append(done.output + str(done.exception))
    said += [cli("extract", url, "-o", "s3://KEY:HUSH@secrets/x.csv").output]
    Path("list.csv").unlink()
    assert "unreachable" in Path("w.csv").read_text()
    assert Path("w.csv").read_text().count("not_found") == 1
    for path in (path for path in here.rglob("*") if path.is_file()):
        assert b"HUSH" not in path.read_bytes(), path
    assert "HUSH" not in "".join(said)
