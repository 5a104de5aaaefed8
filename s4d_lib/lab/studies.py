"""protocol → record     the book's first studies, each one command with its protocol in code: `s4d study few_labels`.

Training is resumable, and the record is written when all runs are in. Derived in chapters 07 and 08.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence

import numpy as np

from s4d_lib.analysis.floors import floors
from s4d_lib.lab.grid import Grid, paired, run_grid, study_record, summarise
from s4d_lib.metrics.calibration import TARGET_ACCURACY, apply_temperature, fit_abstention, fit_temperature, selective
from s4d_lib.metrics.scores import expected_calibration_error
from s4d_lib.records import Record, code_state
from s4d_lib.training.configs import HEAD, FinetuneConfig
from s4d_lib.training.data import read_samples, training_split, views
from s4d_lib.training.runs import Run, train
from s4d_lib.training.scoring import probabilities
from s4d_lib.weights.files import SHIPPED, save_model

LEARNING_RATES = (1e-3, 3e-3)
FEW = 400  # labelled clips; at the smoke tier, which has no more than 120, a few of these


def few_labels(tier: str = "laptop", seeds: Sequence[int] = (0, 1, 2), jobs: int = 2) -> Record:
    """Does masked pretraining help when few clips are labelled? The shipped encoder against random weights.

    Both arms see the same 400 clips, the same number of updates and the same two learning rates, of which each keeps
    the better by mean validation WAR; floors see the same samples. Scored once on the test fold.
    """
    from s4d_lib.training.tiers import finetuning

    grid: Grid = {}
    chosen: dict[str, float] = {}
    few = FEW if tier != "smoke" else 30
    for arm, init in (("pretrained", "shipped"), ("scratch", None)):
        tried = run_grid({f"{arm} {lr:g}": finetuning(tier, "dfer", f"few_{arm}", init=init, train_clips=few, lr=lr)
                          for lr in LEARNING_RATES}, seeds, jobs)
        best = max(tried, key=lambda name: np.mean([_chosen_validation(run) for run in tried[name]]))
        grid[arm], chosen[arm] = tried[best], float(best.split()[1])
    beside = floor_scores(finetuning(tier, "dfer", train_clips=few))
    table = summarise(grid)
    gain = paired(grid, "pretrained", "scratch")
    headline = (f"{few} clips: pretrained WAR {table['pretrained']['clip_war']['value']:.1f} "
                f"UAR {table['pretrained']['clip_uar']['value']:.1f}, scratch WAR "
                f"{table['scratch']['clip_war']['value']:.1f} UAR {table['scratch']['clip_uar']['value']:.1f}, "
                f"pixel ridge WAR {beside['pixel_ridge']['war']['value']:.1f} "
                f"UAR {beside['pixel_ridge']['uar']['value']:.1f}")
    return study_record("few_labels", headline, grid, {
        "floors": beside, "learning_rate": chosen, "pretrained_minus_scratch_war": gain,
        "pretrained_minus_scratch_uar": paired(grid, "pretrained", "scratch", metric="uar"),
    }, tier=tier, protocol={"learning_rates": list(LEARNING_RATES), "chosen_by": "mean validation WAR over seeds",
                            "budget": "equal updates", "test": "one look, fold 1"})


def four_modes(tier: str = "laptop", seeds: Sequence[int] = (0, 1, 2), jobs: int = 2) -> Record:
    """Clips alone, stills alone, both (vanilla), both with experts, from the same encoder and the same labels.

    Two controls: experts on clips alone (capacity), and clips alone for as long as joint training takes in compute.
    A joint epoch adds 22 steps of 48 stills to 16 of 24 clips; a still step costs about half a clip step here.
    """
    from s4d_lib.training.tiers import FINETUNE, finetuning

    epochs = FINETUNE[tier]["epochs"] // 2  # eighteen runs have to fit the quarter of an hour of a laptop chapter
    few = {"train_clips": FEW if tier != "smoke" else None, "epochs": epochs, "warmup_epochs": epochs / 10}
    cells = {
        "dfer": finetuning(tier, "dfer", **few),
        "sfer": finetuning(tier, "sfer", epochs=epochs, warmup_epochs=epochs / 10),
        "joint": finetuning(tier, "joint", **few),
        "moae": finetuning(tier, "moae", **few),
        "dfer with experts": finetuning(tier, "dfer", "dfer_experts", moae_blocks=(2, 3), **few),
        "dfer, joint's compute": finetuning(tier, "dfer", "dfer_longer", **few | {"epochs": round(1.7 * epochs)}),
    }
    grid = run_grid(cells, seeds, jobs)
    table = summarise(grid)
    headline = ", ".join(f"{cell} WAR {table[cell]['clip_war']['value']:.1f} UAR {table[cell]['clip_uar']['value']:.1f}"
                         for cell in ("dfer", "joint", "moae"))
    differences = {f"{one} minus {other}, {metric}": paired(grid, one, other, metric=metric)
                   for one, other in (("joint", "dfer"), ("joint", "dfer, joint's compute"), ("moae", "joint"),
                                      ("moae", "dfer"), ("dfer with experts", "dfer"))
                   for metric in ("war", "uar")}
    return study_record("four_modes", headline, grid, {"floors": floor_scores(cells["dfer"]), "paired": differences},
                        tier=tier, protocol={"budget": "equal clip updates, and one cell at joint's compute",
                                             "test": "one look, fold 1", "untuned": "one setting for every cell",
                                             "schedule": f"{epochs} epochs, half of few_labels': not converged"})


def shipped_encoder(tier: str = "laptop", seeds: Sequence[int] = (0,), jobs: int = 1) -> Record:
    """Pretrain the tiny encoder that the library ships, and put it in its place; one seed, one process."""
    from s4d_lib.training.tiers import pretraining

    run = train(pretraining(tier, "shipped_encoder", seed=seeds[0]))
    SHIPPED["encoder"].parent.mkdir(exist_ok=True)
    shutil.copyfile(run.weights, SHIPPED["encoder"])
    return run.record


def shipped_classifier(tier: str = "laptop", seeds: Sequence[int] = (0,), jobs: int = 1) -> Record:
    """Fine-tune, calibrate and put in its place the classifier that `s4d predict` uses when nobody names another.

    The book's method as it is (shared network, experts, both heads) on all labelled faces of the tier. Temperature
    and abstention are fitted on the validation people that chose the epoch; the test fold is scored once.
    """
    from s4d_lib.checkpoints.loading import load_model
    from s4d_lib.synthetic_faces.recipes import RECIPES
    from s4d_lib.training.tiers import LABELLED, finetuning

    config = finetuning(tier, "moae", "shipped_classifier", epochs=40, warmup_epochs=3.0, seed=seeds[0])
    run = train(config)
    fitted, outcome = _calibrate(run, config)
    faces = ", ".join(sorted({use.name for use in run.record.data}))
    fps = RECIPES[LABELLED[tier].recipe].clip.fps
    save_model(SHIPPED["classifier"], load_model(run.weights), fitted | {
        "schemas": {HEAD[m]: config.schema(m).name for m in config.modalities}, "stride": config.stride,
        "fps": fps, "trained_on": f"drawn faces only: {faces}", "licence": "Apache-2.0"})
    record = run.record
    return record.model_copy(update={"results": record.results | outcome,
                                     "code": code_state() | {"trained_at": record.code["commit"]}, "protocol": {
        **record.protocol, "calibration": "temperature and abstention fitted on the validation split"}})


def _calibrate(run: Run, config: FinetuneConfig) -> tuple[dict[str, dict], dict[str, dict]]:
    """What goes into the model's header (by head), and what it does to the test samples (by modality)."""
    fitted: dict[str, dict] = {"temperature": {}, "abstain_below": {}}
    outcome: dict[str, dict] = {}
    saved = np.load(run.folder / "predictions.npz")
    for m in config.modalities:
        _, validation = training_split(config, m, read_samples(config, m, "train"))
        sampling = "centre" if m == "image" else "test"
        p, labels = probabilities(run.model(), views(config, validation, sampling, 0), config)
        temperature = fit_temperature(p, labels)
        threshold = fit_abstention(apply_temperature(p, temperature), labels)
        test = apply_temperature(saved[f"{m}_probabilities"], temperature)
        fitted["temperature"][HEAD[m]], fitted["abstain_below"][HEAD[m]] = temperature, threshold
        outcome[f"calibrated_{m}"] = {
            "temperature": temperature, "abstain_below": threshold, "target_accuracy": TARGET_ACCURACY,
            "error_before": expected_calibration_error(saved[f"{m}_probabilities"], saved[f"{m}_labels"]),
            "error_after": expected_calibration_error(test, saved[f"{m}_labels"]),
            **selective(test, saved[f"{m}_labels"], threshold)}
    return fitted, outcome


STUDIES = {study.__name__: study for study in (
    shipped_encoder, few_labels, four_modes, shipped_classifier)}


def floor_scores(config: FinetuneConfig) -> dict[str, dict]:
    """The floors on exactly the samples that a fine-tuning configuration reads for its primary task."""
    modality = config.primary
    train_set, validation = training_split(config, modality, read_samples(config, modality, "train"))
    split = {"train": train_set, "validation": validation, "test": read_samples(config, modality, "test")}
    scores = floors(split, config.schema(modality).classes, config.size, config.stride)
    return {name: score.as_dict() for name, score in scores.items()}


def _chosen_validation(run: Run) -> float:
    history = run.record.results["history"]
    return max(line[f"clip_{run.record.config['select']}"] for line in history)
