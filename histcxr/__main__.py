"""The command line without its script on the path: ``python -m histcxr triage FOLDER``."""

from histcxr.commands import main

if __name__ == "__main__":
    main(prog_name="histcxr")
