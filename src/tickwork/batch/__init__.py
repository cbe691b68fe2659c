"""Batches: one function over many items, with order, errors, progress and a checkpoint; over the files of a folder too.

Nothing is imported here: a child process imports this package, and it must cost nothing.
"""
