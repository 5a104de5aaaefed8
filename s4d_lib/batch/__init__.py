"""chapters → runs     the book without anybody watching: parameters, sweeps, slots, status, clusters.

    chapters    which chapters there are, their cells, and the parameters that a run may set.
    words       what stands after -p and --sweep: names with values, and the points that sweeps span.
    sweeps      what the points of a sweep say together: scores with intervals over people or seeds.
    slots       which GPUs each of several runs at a time may see, and whether the disk has room.
    job         one chapter at work: its process, its memory, its end.
    worker      one chapter through Papermill, in a process of its own.
    status      how far a run of a chapter has come, written by the runner and believed after any crash.
    causes      what it means that a chapter's process has ended: done, an error, no memory, no disk, or killed.
    view        how far every run is, while they run: a table in a terminal, lines in a log.
    table       what became of every run: for a terminal, as text, JSON and HTML.
    runner      every chapter of the book, headless, through Papermill; sweeps, GPU slots, resume.
    cluster     the same runs as Slurm jobs, through submitit: arrays for sweeps, requeue with resume.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
