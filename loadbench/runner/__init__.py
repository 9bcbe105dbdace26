"""A run, from a job to its outcome: `measure(job, view)` carries a `Job` out and returns an `Outcome`.

job.py       what one run is to do: settings with their flags, as JSON for another process
connect.py   the server: named, found or started; its replicas, its key, the way to it
measure.py   targets are reached, the plan is shown, sessions run; what became of it, and the exit code
folder.py    what run.json says from the start, and what a run that goes on takes from its folder
plan.py      levels, how long they take, whether so large a load is meant; which one comes next
schedule.py  repeats until means are known well enough; an early end where a threshold surely fails
capacity.py  the search for the highest load within an SLO; probe.py decides on one load
session.py   one run level by level, and runs that take turns; signals
turn.py      a model's turn: loaded, asked a few times, unloaded
watch.py     who looks on: views, samples of server, machine and client
spread.py    levels cut into shares; pool.py has the workers, worker.py what runs in one
child.py     all of that in a process of its own, for `loadbench.run`
"""
