"""What is left of a run, to look at: the report (one HTML file), logs and traces on the console.

`load.py` turns a run directory into the typed data of `data.py`, in one place; every other module
draws one section from those data alone. Nothing here is imported while a lab runs: Bokeh takes
longer to import than a cluster to start.
"""
