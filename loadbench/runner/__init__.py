"""A run, from a job to its outcome: `measure(job, view)` carries a `Job` out and returns an `Outcome`.

job.py       what one run is to do: settings with their flags, as JSON for another process
connect.py   the server: named, found or started; its replicas, its key, the way to it
measure.py   targets are reached, the plan is shown, a large load is asked about, sessions run
folder.py    what run.json says from the start, and what a run that goes on takes from its folder
plan.py      levels and how long they take; which one comes next
schedule.py  repeats until means are known well enough; an early end where a threshold surely fails
capacity.py  the search for the highest load within an SLO; probe.py and rule.py decide on one load
session.py   one run level by level, and runs that take turns; signals
turn.py      a model's turn: loaded, asked a few times, unloaded
watch.py     samples of server, machine and client
spread.py    levels cut into shares; pool.py has the workers, worker.py what runs in one
view.py      who looks on
outcome.py   what became of it, and the exit code
child.py     all of that in a process of its own, for `loadbench.run`
"""
