"""settings files: every value means what it looks like, or is refused with file, line and remedy."""

import pytest
import yaml
from pydantic import ValidationError

from s4d_lib.errors import Refused
from s4d_lib.training.configs import FinetuneConfig, PretrainConfig
from s4d_lib.training.settings_file import read_settings


@pytest.fixture
def read(tmp_path):
    def reading(content):
        (tmp_path / "c.yaml").write_bytes(content if isinstance(content, bytes) else content.encode())
        return read_settings(tmp_path / "c.yaml")

    return reading


def test_values_mean_what_they_look_like(read):
    text = "lr: 1e-3\nprecision: no\nname: 2020-13-45\ncache: on\nseed: -0\nbalance: [image, clip]\ninit: ~\nx: .5\n"
    found = read(text)
    assert found == {"lr": 0.001, "precision": "no", "name": "2020-13-45", "cache": "on", "seed": 0,
                     "balance": ["image", "clip"], "init": None, "x": 0.5}
    assert found.lines["precision"] == 2 and found.lines["x"] == 8
    assert read(b"\xef\xbb\xbfa: 1 # caf\xc3\xa9") == {"a": 1}
    with pytest.raises(ValueError):
        yaml.safe_load("name: 2020-13-45")
    assert yaml.safe_load("precision: no\nlr: 1e-3") == {"precision": False, "lr": "1e-3"}, "control: YAML 1.1"


@pytest.mark.parametrize("content, words", [
    ("lr: 0.1\nname: x\nlr: 100.0", r"c\.yaml:3: 'lr' stands here and in line 1"),
    ("a: {b: 1, b: 2}", "'b' stands here"),
    ("'lr': 1\n\"lr\": 2", "'lr' stands here"),
    ("epochs: 010", r":1: 010 is a number to some"), ("seed: 1:30", "1:30"), ("seed: 0x1F", "0x1F"),
    ("seed: 0o17", "0o17"), ("seed: 1_000", "1_000"), ("seed: -0_7", "-0_7"),
    ("betas: !!set {0.9, 0.95}", "tag !!set"), ("lr: !!float x", "tag !!float"), ("a: !mine x", "tag !mine"),
    ("a: !!python/object/apply:os.system [ls]", "tag !!python/object/apply:os.system"),
    ("a: &one 1\nb: *one", ":1: anchors"), ("<<: {a: 1}", "<< is not read"),
    ("1: a", "key '1' is no word"), ("[a]: 1", "no word"), ("true: 1", "no word"), ("~: 1", "no word"),
    ("[" * 3000, "inside each other"), ("{a: " * 3000, "inside each other"), ("a: [1", "not YAML"),
    ("- a", "must set stage"), ("", "must set stage"), ("a: 1\n---\nb: 2", "another document"),
    ("x: " + "9" * 5000, "not YAML"), (b"a: caf\xe9", r":1: byte 0xe9 is not UTF-8"),
    ("a: 1".encode("utf-16"), "byte 0xff is not UTF-8"), ("a: 1".encode("utf-16-le"), "special characters"),
    (b"#" * 1_000_001, "larger than"),
], ids=range(30))
def test_what_means_something_else_is_refused_with_its_line(read, content, words):
    with pytest.raises(Refused, match=words) as caught:
        read(content)
    assert "c.yaml" in str(caught.value)


def test_a_missing_file_and_a_folder_are_named(tmp_path):
    for place in (tmp_path / "absent.yaml", tmp_path):
        with pytest.raises(Refused, match="there is no such file"):
            read_settings(place)


# --- ranges --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("change", [
    {"clip_norm": -1.0}, {"clip_norm": 0.0}, {"betas": (0.9, 1.0)}, {"betas": (-0.1, 0.9)}, {"seed": -1},
    {"seed": 2**63}, {"split_seed": -1}, {"lr": float("nan")}, {"checkpoint_minutes": float("inf")},
    {"still_weight": float("inf")}, {"mixup": float("inf")}, {"seed": True}, {"sdl_slots": True}, {"lr": True},
    {"betas": (0.9,)}, {"name": "x" * 300}, {"name": "ü" * 110}, {"warmup_epochs": 100.0}, {"size": "huge"},
    {"epochs": 10**15}, {"mode": "moae", "top_k": 9}, {"workers": 10**6},
], ids=str)
def test_a_value_out_of_range_is_refused_by_name(change):
    (name, _), = list(change.items())[-1:]
    with pytest.raises(ValidationError, match=name):
        FinetuneConfig(**{"name": "x", "mode": "dfer"} | change)


def test_control_values_in_range_are_taken():
    assert FinetuneConfig(name="x", mode="dfer", clip_norm=1e-3, betas=(0.0, 0.5), seed=2**63 - 1, cache=True,
                          epochs=5, warmup_epochs=4.9).clip_norm == 1e-3
    assert PretrainConfig(name="ü" * 100).seed == 0


def test_the_command_says_file_line_and_setting(s4d, tmp_path):
    path = tmp_path / "wrong.yaml"
    path.write_text("stage: finetune\nname: d\nmode: dfer\nclip_norm: -1.0\nsize: nano\nmod: x\n")
    code, _, said = s4d("train", path)
    assert code == 2 and "wrong.yaml: line 4: clip_norm: Input should be greater than 0" in said
    assert "line 6: mod: Extra inputs" in said and said.count("\n") == 1
    path.write_text("stage: train\n")
    assert s4d("train", path)[0] == 2
