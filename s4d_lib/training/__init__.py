"""config → run     from a configuration to a folder with weights and a record, in one process or in many.

    later             settings that came after the first runs, so that a fingerprint can pass over them.
    configs           every setting that changes a result, under the names the papers use.
    settings_file     a configuration as somebody wrote it: every value means what it looks like, or is refused.
    transfer_dials    what the transfer laboratory turns: how much of which task, and what is done about conflict.
    s2d_settings      what makes a fine-tuning one of S2D: prompts, adapters, self-distillation.
    data              what a stage reads: its folders, its lists, its split, and how a sample becomes a tensor.
    hashes            the sha256 of every frame file: read once, then known by its size, time and inode.
    content           what data a run is of: every label, group and frame of it, by content and not by place.
    plans             which samples meet in which step: a pure function of seed and epoch.
    jobs              what pretraining and fine-tuning are: their models, their steps, their losses.
    s2d               S2D's two stages: an image model on stills, then prompts and adapters on clips; with SDL.
    remedies          what is done about conflict: ways to weigh the tasks, one table, one step.
    optimizers        AdamW that keeps its moments apart for each task.
    steps             which process computes which samples of a step, and how their gradients meet.
    divergence        a training whose numbers are no longer finite: what happened, on which files, what is saved.
    stopping          a training stops between two steps, so that none is left half applied.
    loop              one loop for every stage on Accelerate: schedule, precision, checkpoints, exact resume.
    state             what a training leaves behind at every moment: a checkpoint of whole steps and a line for each
                      step.
    fitting           the two stages as acts: read the data, fit, score, and say what came out.
    scoring           what a model says of the samples it was not trained on.
    replay            the step that a training did not take, taken once more and looked into.
    fingerprints      by what a run is known, and what it says of itself when it is done.
    runs              train or load: a folder with the configuration, the steps, the weights and the record.
    launch            start the ranks of a training, show what they do, and say how they ended.
    rank              one of several processes that train together, a program of its own.
    tiers             what smoke, laptop and full mean, decided in one place.
    curves            what a run writes down at every step, for TensorBoard and what reads its files.
    costs             what a training costs on a GPU: measured where it was, counted where it was not.
    cost_tables       what the trainings of a tier take on each type of GPU, in rows and in Markdown.
    step_counts       what a training step of a configuration is made of: operations, memory, seconds.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
