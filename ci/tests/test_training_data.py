"""training/data.py: what a configuration says of its data reaches the reader, is refused, or has no use there."""

import pytest
from PIL import Image
from recorded_marks import tables

from s4d_lib import clips
from s4d_lib.training.configs import FinetuneConfig, PretrainConfig
from s4d_lib.training.data import COARSE, read_samples, split_data


@pytest.fixture
def folders(tmp_path):
    """Class folders of clips, each a folder with one picture."""
    for split in ("train", "test"):
        for word in ("Happiness", "Anger"):
            (tmp_path / split / word / "a").mkdir(parents=True)
            Image.new("RGB", (8, 8)).save(tmp_path / split / word / "a" / "1.jpg")
    return tmp_path


def config(folder, **more):
    return FinetuneConfig(**{"name": "x", "mode": "dfer", "clips": str(folder)} | more)


@pytest.mark.parametrize("more, words", [
    ({"clips_as": "crema_d", "label_base": 1}, "'crema_d' fixes its labels.*label_base=1"),
    ({"clips_as": "packed", "clips_schema": "dfew", "label_base": 0}, "'packed' fixes its labels.*label_base=0"),
    ({"clips_as": "voxceleb2", "clips_schema": "dfew"}, "'voxceleb2' fixes its labels.*clips_schema='dfew'")])
def test_what_a_layout_cannot_use_is_refused(folders, more, words):
    with pytest.raises(ValueError, match=words):
        read_samples(config(folders, **more), "clip", "train")


def test_a_layout_without_folds_and_frames_refuses_them(folders):
    plain = config(folders, clips_as="folders", clips_schema="dfew")
    found = read_samples(plain, "clip", "train")
    assert [sample.label for sample in found] == [plain.schema("clip").word(word) for word in ("Anger", "Happiness")]
    for setting, words in (({"fold": 3}, "has no folds"), ({"frames": "elsewhere"}, "leave out frames='elsewhere'")):
        with pytest.raises(ValueError, match=words):
            read_samples(plain.model_copy(update=setting), "clip", "train")


def test_control_where_there_are_folds_and_frames_they_count(tmp_path):
    data = tables(tmp_path)
    with pytest.raises(FileNotFoundError, match="elsewhere"):
        read_samples(FinetuneConfig(name="x", mode="dfer", **data, frames="elsewhere"), "clip", "train")
    with pytest.raises(FileNotFoundError, match="set_3"):
        read_samples(config(tmp_path, fold=3), "clip", "train")


def test_a_split_counts_what_it_holds_and_no_sample_is_in_two_parts(tmp_path):
    data = tables(tmp_path)
    for file in (*tmp_path.rglob("*.jpg"), *tmp_path.rglob("*.mp4")):
        file.write_text(file.name)  # an empty file would be refused, and nothing is decoded
    split = split_data(FinetuneConfig(name="x", mode="joint", validation=0.3, **data))
    for m in ("image", "clip"):
        parts = {name: {sample.id for sample in getattr(split, name)[m]} for name in ("train", "validation", "test")}
        assert split.counts[m] == {name: len(ids) for name, ids in parts.items()} and split.skipped[m] == []
        assert sum(split.counts[m].values()) == 28 == len(set.union(*parts.values()))
        assert parts["test"] == {f"{i:02}.{'jpg' if m == 'image' else 'mp4'}" for i in range(0, 28, 4)}


def test_merged_classes_are_those_of_their_feelings(tmp_path):
    settings = {"name": "x", "mode": "joint", **tables(tmp_path)}
    fine, merged = (FinetuneConfig(**settings, still_labels=how) for how in ("listed", "merged"))
    pairs = {(fine.schema("image").classes[one.label], merged.schema("image").classes[other.label]) for one, other in
             zip(read_samples(fine, "image", "train"), read_samples(merged, "image", "train"))}
    assert pairs == {(name, COARSE.get(name, "Negative")) for name in fine.schema("image").classes}


def test_an_unknown_augmentation_is_answered_with_those_there_are():
    with pytest.raises(ValueError, match="no augmentation is called 'HEAVY'; there are .*LIGHT, MOVES, FLIPS, EVAL"):
        PretrainConfig(name="x", augment_clips="HEAVY")
    with pytest.raises(ValueError, match="no augmentation is called 'augment'"):
        PretrainConfig(name="x", augment_stills="augment")  # a name of that module, but no recipe
    from s4d_lib.clips import recipes as recipes_file

    recipes = {name: value for name, value in vars(recipes_file).items() if isinstance(value, clips.AugmentRecipe)}
    assert recipes == clips.RECIPES, "a recipe that is not in the table cannot be named"
