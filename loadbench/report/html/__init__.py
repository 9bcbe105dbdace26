"""The report as one self-contained HTML file: the blocks of the other formats, and plots of the same figures.

markup.py    HTML from Python: what is not Markup is text
page.py      the page around a document, its security policy, plotly's JavaScript where it is installed
trace.py     plotly's traces from figures with their n and interval
curves.py timeline.py choice.py   the plots of a run, and a rank whose weights a reader can move
matrix.py    several runs in one page
assets/      our own script and style
"""
