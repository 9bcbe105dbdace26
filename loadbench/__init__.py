"""Load-test the language models on your own machines.

Data flows one way through flat files, named by the nouns of the field. Two halves meet only in the run folder:

    run:   scenario -> prompts -> target -> pacer -> engine -> client -> transport -> sse -> result -> store
    read:  store -> result, histogram -> metrics, intervals, scaling, validity -> report

`cli` puts them together. Neither half imports the other.
"""

__version__ = "0.1.0"
