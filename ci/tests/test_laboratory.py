"""The transfer laboratory: dials become configurations, controls do what they say, records keep every answer."""

import shutil
from copy import deepcopy
from pathlib import Path

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from s4d_lib.frames.local_contrast import local_contrast
from s4d_lib.lab import cells as lab_cells
from s4d_lib.lab import reading, transfer_studies
from s4d_lib.lab.cells import METHODS, Cell, Scale, alone, as_long, run_config
from s4d_lib.lab.laboratory import run_lab
from s4d_lib.lab.records import LabRecord, lab_record
from s4d_lib.lab.rerun import rerun
from s4d_lib.lab.transfer_studies import FACTORS, GENERATORS, screening_design, transfer_harm
from s4d_lib.layers.adapters import FixedRouter, MixtureOfAdapterExperts
from s4d_lib.training import jobs, runs
from s4d_lib.training.configs import HEAD, FinetuneConfig
from s4d_lib.training.data import read_samples, training_split
from s4d_lib.training.fitting import build_classifier
from s4d_lib.training.optimizers import TaskAdamW
from s4d_lib.training.plans import steady_plan
from s4d_lib.training.remedies import Combiner
from s4d_lib.training.state import Progressed, load_state, save_state
from s4d_lib.weights.files import SHIPPED

TINY = Scale(60, 60, 2, 2, 4, 6)


@pytest.fixture
def lab(tmp_path, monkeypatch):
    monkeypatch.setenv("S4D_DATA", str(tmp_path / "data"))
    monkeypatch.setitem(lab_cells.SCALES, "smoke", TINY)
    return tmp_path


# --- cells and methods -----------------------------------------------------------------------------------------------


def test_a_cell_is_named_by_the_dials_that_were_turned():
    assert Cell().name == "centre"
    assert Cell(clips=1600, noise="heavy", weight=0.3).name == "clips=1600 noise=heavy weight=0.3"
    assert alone(Cell(clips=200, init="random", noise="heavy", weight=3)) == Cell(clips=200, init="random")
    assert [as_long(Cell(ratio=ratio)) for ratio in (1, 4, 8)] == ["dfer_x1.5", "dfer_x3", "dfer_x5"]
    with pytest.raises(ValueError, match="noise must be one of none, default, heavy, got 'some'"):
        Cell(noise="some")


@pytest.mark.slow
def test_every_method_is_a_valid_configuration(lab):
    for method in METHODS:
        found = run_config(Cell(clips=20), method, 3, "smoke")
        assert found.name == f"lab_{method}" and found.seed == found.split_seed == 3
    assert run_config(Cell(clips=20), "dfer_x3", 0, "smoke").epochs == 3 * TINY.epochs
    with pytest.raises(ValueError, match="method must be one of dfer, "):
        run_config(Cell(), "majority", 0, "smoke")


def test_the_screening_design_is_balanced_and_of_resolution_four():
    cells, levels = screening_design()
    assert len(set(cells)) == 16 and np.array_equal(levels.T @ levels, 16 * np.eye(len(FACTORS), dtype=int))
    for a in range(len(FACTORS)):  # no main effect equals an interaction of two others
        for b in range(a):
            assert not any(abs((levels[:, a] * levels[:, b]) @ levels[:, c]) == 16 for c in range(len(FACTORS)))
    assert set(GENERATORS) | {"clips", "sequence", "init", "ratio"} == set(FACTORS)


@pytest.mark.slow
def test_phases_share_no_face_and_dials_of_stills_leave_the_clips_alone(lab):
    explore, confirm = (lab_cells.data_folders(Cell(), "smoke", phase) for phase in ("explore", "confirm"))
    assert not set(explore.values()) & set(confirm.values())
    heavy = lab_cells.data_folders(Cell(noise="heavy", weight=3), "smoke")
    assert heavy["clips"] == explore["clips"] and heavy["stills"] != explore["stills"]


# --- plans -----------------------------------------------------------------------------------------------------------

LABELS = {"image": np.arange(13) % 3, "clip": np.arange(7) % 2}


def test_a_steady_plan_has_its_counts_whatever_the_data_and_covers_them_before_it_repeats():
    batch, counts = {"image": 4, "clip": 2}, {"image": 6, "clip": 3}
    epochs = [steady_plan(LABELS, batch, counts, seed=0, epoch=epoch) for epoch in range(4)]
    for steps in epochs:
        assert [sum(step.modality == m for step in steps) for m in ("image", "clip")] == [6, 3]
    for turn in range(0, 12, 3):  # 7 clips make 3 whole batches: every pass meets 6 different ones
        pass_ = [i for step in steady_plan(LABELS, batch, {"image": 1, "clip": 3}, 0, turn // 3)
                 if step.modality == "clip" for i in step.indices]
        assert len(set(pass_)) == 6
    assert epochs[0] == steady_plan(LABELS, batch, counts, 0, 0) != epochs[1]
    with pytest.raises(ValueError, match="7 clip samples do not fill one batch of 8"):
        steady_plan(LABELS, batch | {"clip": 8}, counts, 0, 0)


def test_paired_steps_take_turns():
    steps = steady_plan(LABELS, {"image": 4, "clip": 2}, {"image": 5, "clip": 5}, 0, 0, paired=True)
    assert [step.modality for step in steps] == ["image", "clip"] * 5


# --- what the controls do --------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_random_labels_keep_the_counts_and_lose_the_task(lab):
    wanted = run_config(Cell(clips=20), "random_labels", 0, "smoke")
    plain = wanted.model_copy(update={"still_labels": "listed"})
    listed = read_samples(wanted, "image", "train")
    kept, dealt = (sum(training_split(one, "image", listed), []) for one in (plain, wanted))
    before, after = ({sample.id: sample.label for sample in several} for several in (kept, dealt))
    assert sorted(before.values()) == sorted(after.values()) and before != after
    clips = read_samples(wanted, "clip", "train")
    assert training_split(wanted, "clip", clips) == training_split(plain, "clip", clips)


@pytest.mark.slow
def test_merged_and_left_out_classes(lab):
    merged = read_samples(run_config(Cell(clips=20, schema="merged"), "joint", 0, "smoke"), "image", "train")
    plain = read_samples(run_config(Cell(clips=20), "joint", 0, "smoke"), "image", "train")
    assert {(a.label, b.label) for a, b in zip(plain, merged)} == {  # affectnet7 → Positive Negative Surprise Neutral
        (0, 3), (1, 0), (2, 1), (3, 2), (4, 1), (5, 1), (6, 1)}
    without = run_config(Cell(clips=20), "without_happiness", 0, "smoke")
    train, validation = training_split(without, "image", plain)
    assert {sample.label for sample in train + validation} == {0, 2, 3, 4, 5, 6}


@pytest.mark.slow
def test_eleven_classes_are_the_seven_with_four_cut_in_two_by_strength(lab):
    fine_config = run_config(Cell(clips=20, schema="split"), "joint", 0, "smoke")
    plain_config = run_config(Cell(clips=20), "joint", 0, "smoke")
    assert [len(one.schema("image")) for one in (fine_config, plain_config)] == [11, 7]
    split = lab_cells.SPLIT
    stills = Path(plain_config.stills)
    with np.load(stills / "truth.npz") as truth:
        strength = dict(zip(truth["ids"].tolist(), truth["action_units"].sum(1).tolist()))
    for part in ("train", "test"):
        fine, plain = (read_samples(one, "image", part) for one in (fine_config, plain_config))
        assert [a.path for a in fine] == [b.path for b in plain] and [a.group for a in fine] == [b.group for b in plain]
        for a, b in zip(fine, plain):
            coarse = plain_config.schema("image").classes[b.label]
            assert fine_config.schema("image").classes[a.label] in split.get(coarse, (coarse,))
    every = {sample.id: fine_config.schema("image").classes[sample.label] for part in ("train", "test")
             for sample in read_samples(fine_config, "image", part)}
    for weak, strong in split.values():
        halves = [[strength[id] for id, name in every.items() if name == one] for one in (weak, strong)]
        assert max(halves[0]) < min(halves[1]) and len(halves[1]) - len(halves[0]) in (0, 1)
    model = build_classifier(fine_config)
    assert model.head["image"].out_features == 11 and model.head["video"].out_features == 7


@pytest.mark.trains
def test_a_run_is_known_by_the_content_of_what_it_starts_from(lab, monkeypatch):
    """Another copy of the book has its encoder at another place; its runs are the same runs."""
    class Reached(Exception):
        pass

    def stop(config, data, folder, mark):
        raise Reached(folder.name)

    def name(path):
        with pytest.raises(Reached) as reached:
            runs.train(run_config(Cell(clips=20), "dfer", 0, "smoke", init=str(path)), lab / "runs")
        return str(reached.value)

    monkeypatch.setattr(runs, "finetune", stop)
    moved, other = lab / "elsewhere" / "encoder.safetensors", lab / "other.safetensors"
    moved.parent.mkdir()
    shutil.copyfile(SHIPPED["nano_encoder"], moved)
    other.write_bytes(moved.read_bytes() + b" ")
    assert name(SHIPPED["nano_encoder"]) == name(moved) != name(other)


def test_a_width_without_an_encoder_says_so():
    with pytest.raises(ValueError, match="size='nano_wide' has no pretrained encoder: say init='random'"):
        Cell(size="nano_wide")
    assert alone(Cell(size="nano_wide", init="random", weight=3)).size == "nano_wide"


def test_shuffled_patches_keep_the_pixels_and_lose_the_places():
    x = torch.randn(5, 3, 24, 36)
    mixed = jobs.shuffle_patches(x, 12)
    assert torch.equal(x.flatten(1).sort().values, mixed.flatten(1).sort().values) and not torch.equal(x, mixed)
    corners = {tuple(p.flatten().tolist()) for p in x[0].unfold(1, 12, 12).unfold(2, 12, 12).permute(1, 2, 0, 3, 4)
               .flatten(0, 1)}
    assert all(tuple(p.flatten().tolist()) in corners
               for p in mixed[0].unfold(1, 12, 12).unfold(2, 12, 12).permute(1, 2, 0, 3, 4).flatten(0, 1))


def test_local_contrast_divides_light_and_colour_out():
    frames = torch.randint(40, 120, (2, 24, 20, 3), dtype=torch.uint8)
    brighter = (frames.float() * 1.5 + 20).round().to(torch.uint8)
    found, again = local_contrast(frames).float(), local_contrast(brighter).float()
    assert found.shape == frames.shape and (found[..., 0] == found[..., 2]).all()
    assert (found - again).abs().mean() < 6 < (frames.float() - brighter.float()).abs().mean()
    assert (local_contrast(torch.full((1, 9, 9, 3), 200, dtype=torch.uint8)) == 128).all(), "no difference, no contrast"
    with pytest.raises(ValueError, match="frames must be uint8"):
        local_contrast(frames.float())


def test_task_router_is_one_adapter_a_task_and_uniform_is_their_mean():
    z = {"image": torch.randn(2, 4, 8), "clip": torch.randn(2, 12, 8)}
    split = MixtureOfAdapterExperts(8, 2, 1, router="task", places=4).train()
    equal = MixtureOfAdapterExperts(8, 3, 3, router="uniform").train()
    for number, (_, tokens) in enumerate(z.items()):
        assert torch.allclose(split(tokens), split.experts[number](tokens), atol=1e-6)
        assert torch.allclose(equal(tokens), sum(e(tokens) for e in equal.experts) / 3, atol=1e-6)
        assert not split.routing.dropped.any() and float(split.balance_loss) == 0
    with pytest.raises(ValueError, match="set experts=2"):
        FixedRouter("task", 3, 4)


def test_quiet_and_frozen_routers():
    z = torch.randn(2, 5, 8)
    for kind, same in (("learned", False), ("quiet", True), ("frozen", True)):
        torch.manual_seed(0)
        moae = MixtureOfAdapterExperts(8, 4, 2, float("inf"), router=kind).train()
        moae.router.noise_linear.bias.data.fill_(3.0)
        assert torch.equal(moae(z), moae(z)) == same
        assert all(p.requires_grad == (kind != "frozen") for p in moae.router.parameters())


def test_separate_states_are_two_optimisers_on_one_weight():
    """The oracle: AdamW with zero weight decay on copies that see one task each, their updates added by hand."""
    torch.manual_seed(0)
    start, gradients = torch.randn(3), torch.randn(6, 3)
    shared = torch.nn.Parameter(start.clone())
    optimizer = TaskAdamW([shared], lr=0.1, weight_decay=0.0)
    apart = {task: torch.nn.Parameter(start.clone()) for task in ("image", "clip")}
    others = {task: torch.optim.AdamW([p], lr=0.1, weight_decay=0.0) for task, p in apart.items()}
    moved = torch.zeros(3)
    for step, gradient in enumerate(gradients):
        task = ("image", "clip", "clip")[step % 3]
        shared.grad, apart[task].grad = gradient.clone(), gradient.clone()
        before = apart[task].detach().clone()
        optimizer.task = task
        optimizer.step()
        others[task].step()
        moved += apart[task].detach() - before
    assert torch.allclose(shared.detach(), start + moved, atol=1e-6)
    mixed = torch.optim.AdamW([torch.nn.Parameter(start.clone())], lr=0.1, weight_decay=0.0)
    for gradient in gradients:
        mixed.param_groups[0]["params"][0].grad = gradient.clone()
        mixed.step()
    assert not torch.allclose(mixed.param_groups[0]["params"][0], shared, atol=1e-3), "one state is another path"
    again = TaskAdamW([shared], lr=0.1, weight_decay=0.0)
    again.load_state_dict(optimizer.state_dict())
    assert set(again.state[shared]) == set(optimizer.state[shared])
    with pytest.raises(RuntimeError, match="set .task"):
        TaskAdamW([shared]).step()


def test_task_states_pass_through_a_checkpoint(tmp_path):
    """Both tasks' moments come back, the next steps are those of an uninterrupted run; a head belongs to one task."""
    heads = {"image": 2, "clip": 4}
    start = torch.nn.ModuleDict({"trunk": torch.nn.Linear(3, 5)} | {m: torch.nn.Linear(5, n) for m, n in heads.items()})
    inputs = {"image": torch.randn(5, 3), "clip": torch.randn(4, 3)}

    def step(network, stepper, task):
        network[task](network["trunk"](inputs[task])).square().sum().backward()
        stepper.task = task
        stepper.step()
        stepper.zero_grad()

    model, again = deepcopy(start), deepcopy(start)
    optimizer, resumed = (TaskAdamW(network.parameters(), lr=0.1) for network in (model, again))
    for task in ("image", "clip", "clip", "image"):
        step(model, optimizer, task)
    save_state(tmp_path, "mark", model, None, optimizer, None, Progressed())
    load_state(tmp_path, "mark", again, None, resumed, None)
    for task in ("image", "clip"):
        for network, stepper in ((model, optimizer), (again, resumed)):
            step(network, stepper, task)
        assert all(torch.equal(a, b) for a, b in zip(model.parameters(), again.parameters()))
    kept = {key.split(".")[0] for key in optimizer.state[model["image"].weight]}
    assert kept == {"image", "step"}, "clips leave the head of stills alone"


def test_a_paired_plain_sum_is_the_gradient_of_the_sum(lab):
    """`paired_sum` against autograd on the added losses, on the first joint step of a run."""
    from s4d_lib.training.loop import _combined_backward

    model = torch.nn.ModuleDict({"trunk": torch.nn.Linear(4, 3), "head": torch.nn.ModuleDict(
        {"image": torch.nn.Linear(3, 2), "video": torch.nn.Linear(3, 2)})})

    def loss(network, modality, batch):
        head = network["head"]["image" if modality == "image" else "video"]
        return head(network["trunk"](batch["x"])).square().mean()

    class Plain:
        def autocast(self):
            return torch.autocast("cpu", enabled=False)

    ready = [("image", {"x": torch.randn(5, 4)}), ("clip", {"x": torch.randn(6, 4)})]
    job = type("Job", (), {"loss": staticmethod(loss), "model": model, "combiner": Combiner("sum", 2),
                           "heads": {m: list(model["head"][h].parameters()) for m, h in HEAD.items()}})
    total = _combined_backward(job, Plain(), model, ready)
    found = {name: p.grad.clone() for name, p in model.named_parameters()}
    model.zero_grad()
    plain = sum(loss(model, m, batch) for m, batch in ready)
    plain.backward()
    assert total == pytest.approx(float(plain.detach()))
    assert all(torch.allclose(found[name], p.grad, atol=1e-6) for name, p in model.named_parameters())


@pytest.mark.parametrize(("change", "words"), [
    ({"remedy": "sum"}, "mode joint or moae, and clip_steps"),
    ({"remedy": "sum", "clip_steps": 2, "accumulate": 2}, "whole"),
    ({"mode": "joint", "remedy": "sum", "clip_steps": 2, "optimizer_states": "separate"}, "separate optimiser states")])
def test_impossible_combinations_are_refused(lab, change, words):
    base = {"name": "x", "mode": "dfer"} | ({"mode": "joint"} if "accumulate" in change else {})
    with pytest.raises(ValidationError, match=words):
        FinetuneConfig(**base | change)


# --- runs and records ------------------------------------------------------------------------------------------------


@pytest.mark.trains
def test_a_lab_record_keeps_what_every_run_said(lab):
    cell = Cell(clips=20, init="random")
    found = run_lab([(cell, method, seed) for method in ("dfer", "joint", "paired_famo") for seed in (1, 2)], "smoke",
                    jobs=1, root=lab / "runs")
    record = lab_record("x", "y", found, {}, "smoke")
    here = LabRecord.of(record).cell(cell.name)
    joint, test = here.methods["joint"], here.test
    predicted = joint.answers()
    assert predicted.shape == (2, len(test.labels)) and len(test.people) == len(test.order_dependent)
    assert joint.seeds == [1, 2] and here.cell() == cell and here.factors["clips"] == 20
    for answers, score in zip(predicted, joint.war):
        assert 100 * (answers == test.labels).mean() == pytest.approx(score)
    assert np.array_equal(joint.answers([2, 1]), predicted[::-1])
    steps = TINY.unit
    assert here.methods["dfer"].updates == [steps, steps] and joint.updates == [2 * steps, 2 * steps]
    assert here.methods["paired_famo"].updates == [steps, steps], "one step of both"


@pytest.mark.trains
def test_a_recorded_run_can_be_trained_again(lab):
    cell = Cell(clips=20, init="random")
    found = run_lab([(cell, method, seed) for method in ("dfer", "joint") for seed in (1, 2)], "smoke", jobs=1,
                    root=lab / "runs")
    record = lab_record("x", "y", found, {"screening": {"faces_seed": 21}}, "smoke")
    again = rerun(record, method="joint", seed=2, root=lab / "elsewhere")
    assert again.same_answers == 100 and again.recorded == pytest.approx(again.found) and again.cell == cell.name
    with pytest.raises(ValueError, match="no method 'moae' in this record; there are: dfer, joint"):
        rerun(record, method="moae", root=lab / "elsewhere")
    tuned = record.model_copy(update={"results": record.results | {
        "tuning": {"joint": {"dial": "lr", "validation_war": {"0.1": 3.0, "0.003": 2.0}}}}})
    other = rerun(tuned, method="joint", seed=2, root=lab / "elsewhere")
    assert other.same_answers < 100, "a tuned method is trained with its tuned setting"
    free = run_lab([(cell, "joint", 2)], "smoke", jobs=1, root=lab / "runs", clip_norm=None)
    unclipped = lab_record("x", "y", free, {"screening": {"faces_seed": 21}}, "smoke")
    assert rerun(unclipped, method="joint", root=lab / "elsewhere").same_answers == 100
    probabilities = [np.load(run.folder / "predictions.npz")["clip_probabilities"]
                     for run in (free[cell, "joint", 2], found[cell, "joint", 2])]
    assert not np.allclose(*probabilities), "clipping must matter here, or the line before shows nothing"


@pytest.mark.trains
def test_the_cell_with_harm_changes_one_thing_a_method(lab, monkeypatch):
    monkeypatch.setenv("S4D_RUNS", str(lab / "runs"))
    for name, noise in (("HARM", "heavy"), ("RIGHT", "default")):
        monkeypatch.setattr(transfer_studies, name, Cell(clips=20, weight=8, noise=noise, init="random"))
    record = transfer_harm("smoke", (1,), jobs=1)
    harm, right = record.results["alone"]
    dials = {name.split(": ")[1]: (one["clip_norm"], one["still_weight"]) for name, one in record.config.items()}
    assert {f"{cell}: joint" for cell in (harm, right)} <= set(record.config), "a method of two cells is kept twice"
    assert dials.pop("joint_light") == (None, 0.1) and dials.pop("joint_clipped") == (1.0, 8.0)
    assert {kept for name, kept in dials.items() if not name.startswith("dfer")} == {(None, 8.0)}
    assert {clip for name, (clip, _) in dials.items() if name.startswith("dfer")} == {None}
    assert len({use.sha256 for use in record.data if "stills" in use.name}) == 2, "both kinds of labels are named"
    for other in ("joint", "joint_light", "joint_clipped", "adapters", "same_compute", "converged"):
        assert reading.has(record, harm, "moae_clean", other), other
    assert reading.has(record, right, "joint", "dfer") and set(record.results["floors"]) >= {"pixel_ridge"}
    for method in ("joint", "joint_clipped", "joint_light"):
        assert rerun(record, harm, method, 1, lab / "elsewhere").same_answers == 100


@pytest.mark.slow
def test_loud_experts_start_loud(lab):
    quiet, loud = (build_classifier(run_config(Cell(clips=20, init="random"), method, 0, "smoke"))
                   for method in ("moae_clean", "loud_experts"))
    spread = [model.blocks[3].moe_layer.experts[0].fc1.weight.detach().std() for model in (quiet, loud)]
    assert float(spread[1] / spread[0]) == pytest.approx(0.077 / 0.02, rel=1e-4)


@pytest.mark.slow
def test_the_encoder_of_the_laboratory_loads_whole(lab):
    from s4d_lib.checkpoints.encoders import load_encoder

    model = build_classifier(run_config(Cell(clips=20, init="random"), "joint", 0, "smoke"))
    report = load_encoder(model, SHIPPED["nano_encoder"])
    assert "54 tensors matched" in str(report)
    tiny = run_config(Cell(clips=20, init="random", size="tiny"), "joint", 0, "smoke")
    with pytest.raises(ValueError, match="build the model in the Size"):
        load_encoder(build_classifier(tiny), SHIPPED["nano_encoder"])
