"""Run the command line from a checkout: ``python cli.py triage FOLDER`` is ``histcxr triage FOLDER``."""

from histcxr.commands import main

if __name__ == "__main__":
    main()
