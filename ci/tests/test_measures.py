"""lab/measures.py and lab/foretelling.py: stopped runs against whole ones, controls with known answers, chance."""

import json

import numpy as np
import pytest
import torch

from s4d_lib.analysis.interference import moments
from s4d_lib.lab.foretelling import PREDICTORS, predictors, rank_correlations
from s4d_lib.lab.measures import (
    alike,
    block_features,
    gradient_agreement,
    lookahead,
    make_probe,
    one_each,
    plain,
    state_interference,
    stop_run,
    use_of_time,
)
from s4d_lib.models.classifier import S4DClassifier
from s4d_lib.models.sizes import Size
from s4d_lib.training.configs import FinetuneConfig
from s4d_lib.training.data import read_samples, training_split
from s4d_lib.training.fitting import build_classifier
from s4d_lib.training.jobs import finetune_job
from s4d_lib.training.loop import run_job

SIZE = Size(image_size=(16, 24), frames=4, patch=8, tubelet=2, dim=12, depth=3, heads=2, decoder_dim=8,
            decoder_depth=1, decoder_heads=2, positions="separable")


def network(seed: int = 0, dropout: float = 0.3) -> S4DClassifier:
    torch.manual_seed(seed)
    model = S4DClassifier(SIZE, {"image": 3, "video": 5}, dropout=dropout, pool="positions")
    with torch.no_grad():  # larger than the paper's start, so that gradients reach everything
        for p in model.parameters():
            p.add_(0.1 * torch.randn_like(p))
    return model


def samples(count: int, seed: int, shape: tuple[int, ...], classes: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Samples whose class is a brightness of their first channel: something that a gradient can find."""
    chance = torch.Generator().manual_seed(seed)
    y = torch.randint(classes, (count,), generator=chance)
    x = torch.randn(count, *shape, generator=chance)
    x[:, 0] += y.float().view(-1, *[1] * (len(shape) - 1))
    return x, y


def small_probe(draws: int = 2, stills: int = 24, people: int = 12):
    shown = {"clip": np.repeat(np.arange(people), 3)}
    return make_probe(samples(stills, 1, (3, 16, 24), 3), samples(3 * people, 2, (3, 4, 16, 24), 5), shown, draws)


# --- the samples ------------------------------------------------------------------------------------------------------


def test_nobody_is_in_two_batches_and_every_sample_in_one():
    x, y = samples(36, 0, (3, 4, 16, 24), 5)
    people = np.random.default_rng(0).permutation(np.repeat(np.arange(12), 3))
    x[:, 0, 0, 0, 0] = torch.from_numpy(people).float()  # each sample carries who it shows
    probe = make_probe(samples(9, 1, (3, 16, 24), 3), (x, y), {"clip": people}, draws=2)
    shown = [set(part[:, 0, 0, 0, 0].tolist()) for part, _ in probe.batches["clip"]]
    assert len(shown) == 4 and sum(map(len, shown)) == 12 and set.union(*shown) == set(range(12))
    assert sum(len(part) for part, _ in probe.batches["clip"]) == 36
    assert [len(part) for part, _ in probe.batches["image"]] == [3, 2, 2, 2]


def test_the_control_keeps_pictures_and_class_counts():
    probe = small_probe()
    pairs = list(zip(probe.batches["clip"], probe.batches["random"]))
    assert all(torch.equal(one[0], other[0]) for one, other in pairs)
    assert all(torch.equal(one[1].sort().values, other[1].sort().values) for one, other in pairs)
    assert any(not torch.equal(one[1], other[1]) for one, other in pairs)


def test_too_few_people_are_refused():
    with pytest.raises(ValueError, match="4 batches without shared people .* clips show 3"):
        small_probe(people=3)


def test_one_clip_of_each_person():
    people = np.array([7, 7, 2, 7, 5, 2])
    assert one_each(people).tolist() == [0, 2, 4]


# --- one model --------------------------------------------------------------------------------------------------------


def test_agreement_in_a_record():
    model, probe = network().train(), small_probe()
    found = gradient_agreement(model, probe)
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    assert set(found["within"]) == {"image", "clip", "random"}
    assert set(found["between"]) == {"image | clip", "image | random", "clip | random"}
    assert list(found["between"]["image | clip"]) == ["embed", "block 0", "block 1", "block 2", "norm"]
    assert model.training and all(p.grad is None for p in model.parameters())


def test_a_task_against_itself_gives_its_ceiling():
    probe = small_probe()
    probe.batches["image"] = probe.batches["clip"]
    found = gradient_agreement(network(), probe)
    for group, row in found["between"]["image | clip"].items():
        assert row["cosine"] == pytest.approx(found["within"]["clip"][group], abs=1e-3) and row["ratio"] == 1


def test_a_state_of_its_own_interferes_with_nothing():
    model, probe = network().eval(), small_probe()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    for x, y in probe.batches["clip"][:3]:
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(model(x), y).backward()
        optimizer.step()
    own = moments(optimizer, model)
    same = state_interference(model, optimizer, {"clip": own}, probe, size=4)
    assert all(row["cosine"][0] == pytest.approx(1) and row["size"][0] == pytest.approx(1)
               for row in same["clip"].values())
    fresh = torch.optim.AdamW(network().parameters(), lr=1e-3)
    other = state_interference(model, optimizer, {"clip": moments(fresh, network())}, probe, size=4)
    assert all(row["cosine"][0] < 0.999 for row in other["clip"].values()), "a foreign state must show"
    assert json.dumps(other, allow_nan=False)


def test_a_step_of_a_task_helps_itself():
    model, probe = network(), small_probe()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)
    found = lookahead(model, optimizer, probe)
    assert set(found) == {"image → image", "image → clip", "clip → image", "clip → clip"}
    assert found["image → image"][0] > 0 and found["clip → clip"][0] > 0
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


# --- several models ---------------------------------------------------------------------------------------------------


def test_features_are_those_that_the_head_reads():
    model = network(dropout=0.0).eval()
    x, _ = samples(5, 0, (3, 4, 16, 24), 5)
    found = block_features(model, x, chunk=2)
    assert list(found) == ["block 0", "block 1", "block 2"]
    places = found["block 2"].view(5, model.places, -1)
    torch.testing.assert_close(model.fc_norm(places).flatten(1), model.features(x))
    assert all(not block._forward_hooks for block in model.blocks)


def test_a_network_is_like_itself_and_unlike_another():
    a, b = network(0), network(1)
    x, _ = samples(24, 0, (3, 16, 24), 3)
    found = alike({"a": a, "same": a, "b": b}, x)
    assert set(found) == {"a | same", "a | b", "same | b"}
    assert all(value == pytest.approx(1) for value in found["a | same"].values())
    assert found["a | b"] == found["same | b"] and found["a | b"]["block 2"] < 0.99


def test_use_of_time_in_a_record():
    found = use_of_time(network(), small_probe())
    assert set(found) == {"shuffled", "reversed", "one frame"}
    assert all(len(row["accuracy"]) == 3 for row in found.values()) and json.dumps(found, allow_nan=False)


# --- a run, stopped ---------------------------------------------------------------------------------------------------


def configured(faces, mode: str = "joint", **more) -> FinetuneConfig:
    return FinetuneConfig(name=mode, mode=mode, size="nano", stills=str(faces / "stills"), clips=str(faces / "clips"),
                          frames="clip_mp4", augment_stills="LIGHT", augment_clips="LIGHT", mixup=0, cutmix=0,
                          pool="positions", dropout=0.1, batch_clips=4, batch_stills=6, epochs=2, warmup_epochs=0.5,
                          lr=1e-3, layer_decay=0.75, device="cpu", validation=0.2, **more)


def whole_run(config: FinetuneConfig, folder, at: int) -> tuple[dict, list[str]]:
    """The same job through the training loop in one go; weights before step `at` (from 0), modalities of all steps."""
    split = {m: training_split(config, m, read_samples(config, m, "train"))[0] for m in config.modalities}
    job, loop = finetune_job(config, build_classifier(config), split, {"image": 7, "clip": 7})
    inner, seen, kept = job.loss, [], {}

    def loss(network, modality, batch):
        if len(seen) == at:
            kept.update({name: value.detach().clone() for name, value in job.model.state_dict().items()})
        seen.append(modality)
        return inner(network, modality, batch)

    job.loss = loss
    run_job(job, loop, folder, "whole")
    return kept, seen


@pytest.mark.trains
def test_a_stopped_run_is_the_run_itself(faces, tmp_path):
    config = configured(faces)
    weights, seen = whole_run(config, tmp_path / "whole", at=5)
    found = stop_run(config, 5)
    assert len(seen) > 8 and found.updates == 5
    assert found.counts == {m: seen[:5].count(m) for m in ("image", "clip")}
    assert all(torch.equal(value, weights[name]) for name, value in found.model.state_dict().items())
    steps = {moment.step for moment in moments(found.optimizer, found.model).values()}
    assert steps == {5}, "its optimiser has taken the same steps"
    rates = {group["lr"] for group in found.optimizer.param_groups}
    assert max(rates) == pytest.approx(config.lr) and len(rates) > 2, "peak rates with layer decay"


@pytest.mark.trains
def test_a_run_stops_at_a_count_of_one_modality(faces):
    config = configured(faces)
    found = stop_run(config, 2, "clip")
    assert found.counts["clip"] == 2 and sum(found.counts.values()) == found.updates
    alone = stop_run(configured(faces, "dfer"), 2, "clip")
    assert alone.updates == 2 and alone.counts == {"clip": 2}
    assert stop_run(config, 0).updates == 0
    assert stop_run(config, 0, "image").updates == 0


@pytest.mark.trains
def test_a_cell_is_measured_whole(faces, tmp_path, monkeypatch):
    """Runs missing, runs there, and every predictor finds its place in what comes out."""
    from s4d_lib.lab import cells as lab_cells
    from s4d_lib.lab import measures

    monkeypatch.setattr(lab_cells, "run_config", lambda cell, method, seed, tier, phase: configured(
        faces, method, seed=seed))
    sizes = {"draws": 1, "people": 2, "stills": 6, "root": tmp_path, "again": 1}
    found = measures.measure_cell(lab_cells.Cell(), 0, **sizes)
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    assert found["steps"]["joint"] == found["steps"]["image"] + found["steps"]["clip"]
    assert list(found["alike"]["early"]["clip"]) == ["joint | dfer", "joint | sfer", "dfer | sfer"]
    assert {"dfer | sfer", "dfer | dfer again", "joint | start"} <= set(found["alike"]["end"]["image"])
    assert list(predictors(found)) == list(PREDICTORS)
    assert measures.measure_cell(lab_cells.Cell(), 0, **sizes) == found, "the same runs, the same measures"


# --- prediction -------------------------------------------------------------------------------------------------------


def table(cells: int, seed: int = 0) -> tuple[dict, dict]:
    rng = np.random.default_rng(seed)
    transfer = {f"c{i}": float(rng.normal()) for i in range(cells)}
    rows = {cell: {"tells": value**3, "says nothing": float(rng.normal()),
                   "rarely": value if i < 3 else None} for i, (cell, value) in enumerate(transfer.items())}
    return rows, transfer


def test_a_measure_that_tells_is_found_and_one_that_does_not_is_not():
    rows, transfer = table(14)
    found = rank_correlations(rows, transfer, shuffles=200)
    assert set(found["rho"]) == {"tells", "says nothing"}, "three cells are too few to correlate"
    assert found["rho"]["tells"]["value"] == 1 and found["rho"]["tells"]["cells"] == 14
    assert 0.4 < found["chance"] < 0.9
    assert abs(found["rho"]["says nothing"]["value"]) < found["chance"]
    assert json.dumps(found, allow_nan=False)


def test_chance_grows_with_the_number_of_measures_and_falls_with_cells():
    rng = np.random.default_rng(1)

    def chance(cells: int, measures: int) -> float:
        rows = {f"c{i}": {f"m{j}": float(rng.normal()) for j in range(measures)} for i in range(cells)}
        return rank_correlations(rows, {cell: float(rng.normal()) for cell in rows}, shuffles=200)["chance"]

    one = chance(12, 1)
    assert one == pytest.approx(0.587, abs=0.08), "the two-sided 5 % point of Spearman's rho for 12 pairs"
    assert chance(12, 10) > one > chance(40, 1)


def measured(cosine: float = 0.2, corrected: float | None = 0.5) -> dict:
    row = {"cosine": [cosine, 0.0, 0.4], "ratio": 2.0, "corrected": corrected}
    pair = {"embed": row, "block 0": row | {"cosine": [cosine + 0.2, 0, 1]}}
    between = {"image | clip": pair, "image | random": {"embed": row, "block 0": row}}
    share = {"cosine": [0.5, 0, 1], "size": [2.0, 1, 3]}
    last = {"block 0": 0.1, "block 1": 0.9}
    return {"agreement": {"early": {"between": between}}, "interference": {"clip": {"embed": share}},
            "lookahead": {"image → clip": [0.01, 0, 0], "clip → clip": [0.03, 0, 0]},
            "alike": {when: {"clip": {"dfer | sfer": last, "joint | dfer": last}} for when in ("early", "end")},
            "time": {"dfer": {"shuffled": {"accuracy": [-7.0, -9, -5]}}}}


def test_predictors_read_what_is_measured():
    found = predictors(measured())
    assert list(found) == list(PREDICTORS)
    assert found["cosine"] == pytest.approx(0.3) and found["cosine above chance labels"] == pytest.approx(0.1)
    assert found["corrected cosine"] == 0.5 and found["length ratio"] == pytest.approx(np.log(2), abs=1e-4)
    assert found["affinity, less own"] == pytest.approx(-0.02) and found["Adam shrinks"] == 2
    assert found["stills see clips alike"] == 0.9 and found["use of order"] == -7
    assert predictors(measured(corrected=None))["corrected cosine"] is None


def test_plain_numbers():
    assert plain(1.23456789) == 1.235 and plain(float("inf")) is None and plain(None) is None


# --- figures ----------------------------------------------------------------------------------------------------------


def test_a_figure_says_in_words_what_it_shows():
    from s4d_lib.figures.measures import LINES, draw_agreement, draw_foretelling

    drawn = draw_agreement(gradient_agreement(network(), small_probe()), "t")
    assert len(drawn.data) == len(LINES) and "stills with clips" in drawn.layout.meta["alt"]
    rows, transfer = table(14)
    found = rank_correlations(rows, transfer, shuffles=100)
    drawn = draw_foretelling(found, "t")
    assert [trace.marker.symbol for trace in drawn.data] == ["circle", "circle-open"], "filled: beyond chance"
    assert "beyond it: tells +1.00" in drawn.layout.meta["alt"]
