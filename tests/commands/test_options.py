import json

import click
import pytest
from click.testing import CliRunner

from histcxr.commands import main, options


@pytest.fixture
def run():
    return CliRunner().invoke


@click.command()
@options.where_option()
@options.zones_option()
@options.certificate_options
@options.json_option()
def probe(where, zones, sensitivity, specificity, confidence, json_file):
    options.write_json(json_file, {"where": where, "zones": zones, "sensitivity": sensitivity})


def test_where_collects_values_by_column(run, tmp_path):
    path = tmp_path / "o.json"
    result = run(
        probe, ["--where", "source=rsna", "--where", "source=a=b", "--where", "view=PA", "--json", str(path)]
    )
    assert result.exit_code == 0, result.output
    assert json.loads(path.read_text())["where"] == {"source": ["rsna", "a=b"], "view": ["PA"]}


@pytest.mark.parametrize(("text", "value"), [("6", 6), ("1+6", "1+6")])
def test_zones_are_numbers_where_they_can_be(run, tmp_path, text, value):
    path = tmp_path / "o.json"
    run(probe, ["--zones", text, "--json", str(path)])
    assert json.loads(path.read_text())["zones"] == value


@click.command()
@options.recipe_options
def recipe_probe(zones, bands):
    click.echo(f"{zones!r} {bands!r}")


@pytest.mark.parametrize(
    ("arguments", "recipe"),
    [
        ([], "6 'travel'"),
        (["--zones", "1"], "1 ''"),
        (["--zones", "1+6"], "'1+6' ''"),
        (["--bands", "full"], "6 'full'"),
        (["--bands", "none"], "6 ''"),
        (["--zones", "2", "--bands", "dx2"], "2 'dx2'"),
    ],
)
def test_zones_alone_mean_zones_alone(run, arguments, recipe):
    assert run(recipe_probe, arguments).output == recipe + "\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--where", "rsna"], "must look like COLUMN=VALUE, got 'rsna'"),
        (["--zones", "3"], "'3' is not one of"),
        (["--sensitivity", "95"], "must lie between 0 and 1, e.g. 0.95, got 95"),
        (["--confidence", "1"], "must lie between 0 and 1"),
        (["--json", "/nowhere/at/all.json"], "/nowhere/at' does not exist"),
    ],
)
def test_wrong_options_say_what_is_wanted(run, arguments, message):
    result = run(probe, arguments)
    assert result.exit_code != 0
    assert message in result.output


@pytest.mark.parametrize("name", list(main.list_commands(None)))
def test_every_command_has_help_with_an_example(run, name):
    result = run(main, [name, "--help"])
    assert result.exit_code == 0, result.output
    assert f"histcxr {name}" in result.output.split("Options:")[0]
    assert "Example" in result.output
    assert max(map(len, result.output.splitlines())) <= 80  # a terminal's width


def test_unknown_command(run):
    result = run(main, ["diagnose"])
    assert result.exit_code == 2
    assert "No such command 'diagnose'; see histcxr --help" in result.output
    assert "No such command 'trian'; did you mean 'train'?" in run(main, ["trian"]).output


def test_help_lists_every_command(run):
    result = run(main, ["--help"])
    for name in main.list_commands(None):
        assert f"\n  {name} " in result.output
