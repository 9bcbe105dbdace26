"""A run, from what was asked for to what is in its folder: plan, session, search for a capacity, workers."""
