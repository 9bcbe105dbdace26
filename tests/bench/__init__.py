"""What loadbench itself costs, beside stock clients: the parts of `tests/bench_client.py`."""
