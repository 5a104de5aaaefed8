"""protocols and counts: consistent with themselves, every value with its source, differences said in words."""

from __future__ import annotations

import json

import pytest

from s4d_lib.datasets.labels import SCHEMAS
from s4d_lib.datasets.protocols import EXPECTED, PROTOCOLS, Protocol, compare
from s4d_lib.datasets.readers import READERS
from s4d_lib.records import fingerprint


def test_every_known_value_says_where_it_was_read():
    for name, protocol in PROTOCOLS.items():
        assert protocol.name == name and name.split("/")[1] == protocol.dataset in READERS
        for key, value in protocol.as_dict().items():
            if key not in ("name", "paper", "dataset", "source", "span", "classes") and value is not None:
                assert protocol.source.get(key), f"{name}: {key}={value!r} has no source"


def test_values_of_the_papers():
    sampling = {name: (p.frames, p.stride, p.span, p.image_size, p.folds) for name, p in PROTOCOLS.items()}
    assert sampling == {
        "s4d/dfew": ("clip_jpg_256", 4, 64, 160, 5),
        "s4d/ferv39k": ("2_ClipsforFaceCrop", 1, 16, 160, 1),
        "s4d/mafw": ("frames_crop_align_224", 4, 64, 160, 5),
        "s4d/affectnet7": ("Manually_Annotated_Images", None, None, 160, 1),
        "s2d/dfew": ("Clip/clip_224x224_16f", 1, 16, 224, 5),
        "s2d/ferv39k": (None, 1, 16, 224, 1),
        "s2d/mafw": (None, 1, 16, 224, 5),
        "mae-dfer/ferv39k": (None, None, None, None, None),
        "mae-dfer/mafw": (None, None, None, None, None),
    }


def test_a_protocol_goes_into_a_record():
    written = json.loads(json.dumps(PROTOCOLS["s4d/mafw"].as_dict()))
    assert written["classes"][6] == "Happiness" and written["span"] == 64
    assert fingerprint(written) == fingerprint(PROTOCOLS["s4d/mafw"].as_dict())
    assert compare(PROTOCOLS["s4d/mafw"], written) == []


def test_differences_in_words():
    said = compare(PROTOCOLS["s4d/dfew"], PROTOCOLS["s2d/dfew"])
    assert "stride: 4 (s4d/dfew), but 1 (s2d/dfew)" in said
    assert "frame flavour: clip_jpg_256 (s4d/dfew), but Clip/clip_224x224_16f (s2d/dfew)" in said
    assert "frames a clip covers: 64 (s4d/dfew), but 16 (s2d/dfew)" in said
    assert not [line for line in said if line.startswith(("class", "folds", "metric"))], "control: these agree"
    back = compare(PROTOCOLS["s2d/dfew"], PROTOCOLS["s4d/dfew"])
    assert len(back) == len(said) and "stride: 1 (s2d/dfew), but 4 (s4d/dfew)" in back


def test_what_is_not_known_is_said_and_not_filled_in():
    said = compare(PROTOCOLS["s4d/mafw"], PROTOCOLS["mae-dfer/mafw"])
    assert "stride: 4 (s4d/mafw), not known for mae-dfer/mafw" in said
    (order,) = [line for line in said if line.startswith("class order")]
    assert "1 is Anxiety in s4d/mafw and Disgust in mae-dfer/mafw" in order and "(0 is" not in order
    back = compare(PROTOCOLS["mae-dfer/mafw"], PROTOCOLS["s4d/mafw"])
    assert "stride: 4 (s4d/mafw), not known for mae-dfer/mafw" in back
    mine = Protocol("mine", paper="none", dataset="mafw", schema="dfew")
    assert any("only in s4d/mafw" in line and "Anxiety" in line for line in compare(PROTOCOLS["s4d/mafw"], mine))
    with pytest.raises(ValueError, match="a protocol has no sampling_rate; its fields are"):
        compare(PROTOCOLS["s4d/dfew"], {"sampling_rate": 4})


def test_counts_add_up():
    """The published counts contain their own check: folds cover the set, classes cover the folds."""
    for name, expected in EXPECTED.items():
        assert f"s4d/{name}" in PROTOCOLS and expected.source
        for counts in expected.folds.values():
            for total, per_class in ((counts.train, counts.train_per_class), (counts.test, counts.test_per_class)):
                if per_class:
                    assert len(per_class) == len(SCHEMAS[expected.schema]) and sum(per_class) == total
            assert expected.total in (None, (counts.train or 0) + counts.test)
        if expected.disjoint:
            assert sum(counts.test for counts in expected.folds.values()) == expected.total
        assert len(expected.folds) == PROTOCOLS[f"s4d/{name}"].folds
    train, test = EXPECTED["dfew"].folds[1].train_per_class, EXPECTED["dfew"].folds[1].test_per_class
    whole = [sum(fold.test_per_class[i] for fold in EXPECTED["dfew"].folds.values()) for i in range(7)]
    assert [a + b for a, b in zip(train, test)] == whole, "fold 1 and the five test folds count the same clips"
