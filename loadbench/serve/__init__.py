"""Servers of our own, each a child process: the simulator, an adapter, the embedded llama.cpp, Foundry Local."""
