"""Benchmarks: what the methods do, measured on exact toys and on the shipped models, each into a
folder with its tables and figures.

`table` names all of them, `base` says what a benchmark is and keeps its folder, and each has a file
of its own.
"""
