"""The trade-off frontier of quorums: what R and W cost and give, under one timetable of faults.

`settings.py` says what is compared, `run.py` carries out one seed in the simulation, `summary.py`
makes figures with intervals of them, `page.py` draws; `python -m labs frontier-quorum` is the way
in.
"""
