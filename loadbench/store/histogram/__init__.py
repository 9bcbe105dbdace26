"""HDR histograms of durations, and the logs that hold them.

values.py  a histogram: recorded, merged, asked, encoded
log.py     HdrHistogram logs, read line by line
"""

from loadbench.store.histogram.log import log_header, read_log
from loadbench.store.histogram.values import HIGHEST_US, SIGNIFICANT_DIGITS, Histogram

__all__ = ["HIGHEST_US", "SIGNIFICANT_DIGITS", "Histogram", "log_header", "read_log"]
