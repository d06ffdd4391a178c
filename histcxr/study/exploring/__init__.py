"""What an exploration reads and checks; :mod:`histcxr.study.explore` puts it together."""
