"""Suites written by others, and programs people use, run on a real mount.

Each suite is a module with a ``main``; ``make pjdfstest``, ``make fsx``, ``make ltp``, ``make realapps`` and
``make model`` start them.  None fetches anything: a suite's built checkout is named by a variable.  The same
run on a plain directory stands beside the mount's, so that what a suite leaves out by itself shows.
"""
