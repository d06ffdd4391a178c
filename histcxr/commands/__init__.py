"""The command line: one command a file, loaded only when it is called.

The table below is all that ``histcxr --help`` needs, so help stays as quick as the interpreter itself.
"""

from __future__ import annotations

import os
import sys
import warnings
from importlib import import_module
from typing import Any

import click

from histcxr import __version__
from histcxr.commands.shell.places import guarded
from histcxr.exceptions import HistcxrError, HistcxrWarning, InputError, did_you_mean
from histcxr.files.cells import shown

# command -> (module of histcxr.commands, its function, one line for the list of commands)
COMMANDS = {
    "demo": ("demo", "command", "Show the whole chain on made-up radiographs."),
    "explore": ("explore", "explore", "Look at data: a page with classes, histograms, examples, repeats."),
    "extract": ("explore", "extract", "Reduce a folder of radiographs to lung histograms."),
    "train": ("train", "command", "Train, tune and certify classifiers; save the best."),
    "tune": ("tune", "command", "Search for a classifier's settings; resumable."),
    "calibrate": ("calibrate", "command", "Certify a saved model's thresholds on your own patients."),
    "adapt": ("site.adapt", "command", "Adapt a model to your hospital's own labelled patients."),
    "evaluate": ("evaluate", "command", "Measure a saved model, or compare two, on labelled radiographs."),
    "plan": ("site.plan", "command", "Plan how many patients to have read, and which."),
    "triage": ("triage", "triage", "Sort a folder into rule_out, review and rule_in."),
    "monitor": (
        "site.monitor",
        "command",
        "Watch over a site's worklists; alarm where the promise is in doubt.",
    ),
    "report": ("triage", "report", "Write DICOM Structured Reports of a triage; they name patients."),
    "explain": ("explain", "command", "Show where a network looks."),
    "audit": ("site.audit", "command", "Ask of labelled radiographs: is it disease, or the scanner?"),
    "segment": ("segment", "segment", "Find the lungs in a folder of radiographs."),
    "segment-train": ("segment", "segment_train", "Train the network that finds lungs."),
    "reference": ("reference", "command", "Train networks that see the whole image, beside the histograms."),
    "models": ("models", "command", "List the classifiers, or show a saved model's card."),
}


class WrongInput(click.ClickException):
    """An :class:`InputError` as the command line shows it: one message, no traceback, exit code 2."""

    exit_code = 2


class Interrupted(click.ClickException):
    """Ctrl-C: one word, and the exit code that shells know."""

    exit_code = 128 + 2

    def show(self, file: Any = None) -> None:
        """Say it on stderr."""
        click.echo("\nInterrupted.", err=True)


def _show_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: object = None,
    line: object = None,
) -> None:
    click.echo(shown(f"Warning: {message}"), err=True)


class LazyGroup(click.Group):
    """A group whose commands are imported on first use and whose errors become messages."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Name the commands in the order of work."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import the module of one command."""
        if cmd_name not in COMMANDS:
            raise click.UsageError(
                f"No such command {cmd_name!r}{did_you_mean(cmd_name, COMMANDS) or '; see histcxr --help'}"
            )
        module, function, _ = COMMANDS[cmd_name]
        command: click.Command = getattr(import_module(f"{__name__}.{module}"), function)
        return guarded(command)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands from the table, without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, line) for name, (*_, line) in COMMANDS.items()])

    def invoke(self, ctx: click.Context) -> object:
        """Run a command; histcxr's own errors and warnings become messages, errors with an exit code."""
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("always", HistcxrWarning)
                warnings.showwarning = _show_warning
                return super().invoke(ctx)
        except KeyboardInterrupt:
            raise Interrupted("interrupted") from None
        except InputError as error:
            raise WrongInput(shown(str(error))) from error
        except HistcxrError as error:
            raise click.ClickException(shown(str(error))) from error
        except click.UsageError as error:  # it may quote a value
            if shown(error.format_message()) == error.format_message():
                raise
            raise click.UsageError(shown(error.format_message()), error.ctx) from error

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run as a program; after Ctrl-C end at once. Output that was lost is a failure, exit code 1."""
        for number in range(
            3
        ):  # where one is closed, the next file opened would become stdin, stdout or stderr
            try:
                os.fstat(number)
            except OSError:
                os.open(os.devnull, os.O_RDWR)
        try:
            return self.main(*args, **kwargs)
        except OSError as error:  # such as click's own, where it shows help on a full disk
            click.echo(shown(f"Error: {error}"), err=True)
            sys.exit(1)
        except SystemExit as end:
            if end.code == Interrupted.exit_code:
                # Threads of C++ libraries may be at work still: in an orderly end they would abort the process.
                for stream in (sys.stdout, sys.stderr):
                    stream.flush()
                if "multiprocessing" in sys.modules:  # not started by us, it has no children
                    for child in sys.modules["multiprocessing"].active_children():
                        child.terminate()
                os._exit(Interrupted.exit_code)
            raise


@click.group(
    cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100}
)
@click.version_option(__version__, prog_name="histcxr")
def main() -> None:
    """Fast, honest triage of chest radiographs from the intensity histograms of their lungs.

    Research software, not a medical device.

    \b
    Start here:   histcxr triage FOLDER
                  histcxr demo -o demo_output
    Exit codes:   0 done, 1 failure, 2 wrong usage or input,
                  3 done but some files need attention
    """
