"""The app in the browser: thin pages over functions that the command line and the reports call, too."""
