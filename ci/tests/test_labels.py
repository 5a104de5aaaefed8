"""label file → classes: orders as published, words and numbers read alike, nothing translated or counted by guess."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from s4d_lib.datasets.labels import (
    MARK,
    SCHEMAS,
    LabelReader,
    LabelSchema,
    ReaderNote,
    canonical,
    counterparts,
    schema_named,
    translate,
)

# Written down apart from the library: label → word, in the spelling of the released files.
FERV39K_INDEX = "Angry 0\nDisgust 1\nFear 2\nHappy 3\nNeutral 4\nSad 5\nSurprise 6\n"
MAFW_INDEX = (
    "0: 'Anger',\n1: 'Anxiety',\n2: 'contempt',\n3: 'Disappointment',\n4: 'Disgust',\n5: 'Fear',\n6: 'Happiness',\n"
    "7: 'Helplessness',\n8: 'Neutral',\n9: 'Sadness',\n10: 'Surprise',  "
)
MAE_DFER_FERV39K = {"Happy": 0, "Sad": 1, "Neutral": 2, "Angry": 3, "Surprise": 4, "Disgust": 5, "Fear": 6}


def read_all(schema: str, texts: list[str], base=None) -> list[int]:
    reader = LabelReader(SCHEMAS[schema], "list.csv", base)
    found = [reader.read(text, f"list.csv:{line}") for line, text in enumerate(texts, 2)]
    reader.finish()
    return found


# -------------------------------------------------------------------------------- orders


def test_orders_of_the_released_index_files():
    for line in FERV39K_INDEX.splitlines():
        word, label = line.split()
        assert SCHEMAS["ferv39k"].word(word) == int(label)
    for line in MAFW_INDEX.splitlines():
        label, word = line.strip(" ,").split(": ")
        assert SCHEMAS["mafw"].word(word.strip("'")) == int(label)
    for word, label in MAE_DFER_FERV39K.items():
        assert SCHEMAS["mae-dfer/ferv39k"].word(word) == label


def test_schemas_agree_with_each_other():
    counts = {name: len(schema) for name, schema in SCHEMAS.items()}
    assert counts == {
        "dfew": 7, "ferv39k": 7, "mafw": 11, "mafw_compound": 43, "affectnet7": 7, "affectnet8": 8, "rafdb": 7,
        "ferplus": 8, "sfew2": 7, "caer": 7, "mae-dfer/ferv39k": 7, "mae-dfer/mafw": 11, "coarse4": 4,
        "fine11": 11, "unlabelled": 1, "crema_d": 6, "ravdess": 8,
    }  # fmt: skip
    for name, schema in SCHEMAS.items():
        assert schema.name == name and schema.source and len(set(schema.classes)) == len(schema)
    assert SCHEMAS["affectnet8"].classes[:7] == SCHEMAS["affectnet7"].classes
    seven = ("dfew", "ferv39k", "affectnet7", "rafdb", "sfew2", "caer", "mae-dfer/ferv39k")
    assert len({frozenset(SCHEMAS[name].classes) for name in seven}) == 1, "the same seven classes, in other orders"
    eleven = ("mafw", "mae-dfer/mafw")
    assert len({frozenset(SCHEMAS[name].classes) for name in eleven}) == 1
    position = {name: schema.word("happy") for name, schema in SCHEMAS.items()}
    assert position == {
        "dfew": 0, "ferv39k": 3, "mafw": 6, "mafw_compound": 3, "affectnet7": 1, "affectnet8": 1, "rafdb": 3,
        "ferplus": 1, "sfew2": 3, "caer": 3, "mae-dfer/ferv39k": 0, "mae-dfer/mafw": 3, "coarse4": None, "fine11": None,
        "unlabelled": None, "crema_d": 3, "ravdess": 2,
    }  # fmt: skip


def test_an_unknown_schema_is_named_with_the_known_ones():
    with pytest.raises(ValueError, match=r"no label schema is called 'fer2013'; there are dfew, ferv39k"):
        schema_named("fer2013")
    assert schema_named(SCHEMAS["dfew"]) is schema_named("dfew")


# -------------------------------------------------------------------------------- words and numbers


@pytest.mark.parametrize("word", ["Happiness", "Happy", "happiness", "HAPPY", " happy "])
def test_words_in_their_spellings(word):
    assert SCHEMAS["dfew"].label(word, "here") == 0 and SCHEMAS["affectnet7"].label(word, "here") == 1


def test_compound_words_in_any_order():
    schema = SCHEMAS["mafw_compound"]
    one, other = schema.word("sadness_helplessness_disappointment"), schema.word("Disappointment_Sad_Helpless")
    assert one == other is not None and schema.classes[one] == "sadness_helplessness_disappointment"
    assert schema.word("sadness_helplessness") not in (None, one)
    assert schema.word("happiness_fear") is None, "not among the 43"
    assert canonical("happy_") is None and canonical("") is None
    with pytest.raises(ValueError, match=r"'anger_disgust' is not .*mafw: .*schema='mafw_compound'"):
        SCHEMAS["mafw"].label("anger_disgust", "here")


@pytest.mark.parametrize("text", ["-1", "7", "3.0", "1e0", "joy", "", "٣", "0x1", "9" * 30])
def test_labels_outside_the_schema(text):
    with pytest.raises(ValueError, match=r"list\.csv:4: label"):
        SCHEMAS["dfew"].label(text, "list.csv:4")


def test_label_just_past_the_end_hints_at_counting_from_one():
    two = LabelSchema("two", ("a", "b"))
    with pytest.raises(ValueError, match=r"here: label 2 is not in 0\.\.1 .*counts from 1 is read with base=1"):
        two.label("2", "here")
    assert (two.label("1", "here"), two.label("1", "here", base=1), two.label("b", "here", base=1)) == (1, 0, 1)
    with pytest.raises(ValueError, match=r"label 0 is not in 1\.\.2 \(two: a, b\)"):
        two.label("0", "here", base=1)


# -------------------------------------------------------------------------------- from 0 or from 1


@given(st.lists(st.integers(0, 6), min_size=1), st.sampled_from([0, 1]))
def test_a_stated_base_is_taken_at_its_word(labels, base):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert read_all("dfew", [str(label + base) for label in labels], base) == labels


def test_a_list_with_a_zero_counts_from_zero(recwarn):
    assert read_all("dfew", ["3", "0", "6"]) == [3, 0, 6]
    assert read_all("dfew", ["Happy", "Fear"]) == [0, 6], "words leave nothing to count"
    assert not recwarn.list


def test_a_list_that_must_count_from_one_is_refused_until_it_is_said():
    with pytest.raises(ValueError, match=r"list\.csv:3: label 7 is not in 0\.\.6 .*no label .* is 0, .*base=1"):
        read_all("dfew", ["3", "7", "1", "7"])
    assert read_all("dfew", ["3", "7", "1"], base=1) == [2, 6, 0]


@pytest.mark.parametrize("texts", [["0", "7"], ["7", "0"]])
def test_a_zero_and_an_n_fit_neither(texts):
    with pytest.raises(ValueError, match=r"label 7 is not in 0\.\.6 .*1 of its labels are 0, correct the list"):
        read_all("dfew", texts)


def test_where_both_would_fit_the_reading_is_said_aloud():
    with pytest.warns(ReaderNote, match=r"list\.csv: no label is 0 and none is 7, .*read as counting from 0"):
        assert read_all("dfew", ["3", "1"]) == [3, 1]
    with pytest.raises(ValueError, match="base must be 0, 1 or None, got 2"):
        LabelReader(SCHEMAS["dfew"], "list.csv", 2)


# -------------------------------------------------------------------------------- between schemas


@given(st.sampled_from(sorted(SCHEMAS)), st.sampled_from(sorted(SCHEMAS)), st.data())
def test_translation_keeps_the_word(source, target, data):
    labels = data.draw(st.lists(st.integers(0, len(SCHEMAS[source]) - 1), min_size=1, max_size=20))
    for label, found in zip(labels, translate(labels, source, target, missing="mark")):
        word = canonical(SCHEMAS[source].classes[label]) or SCHEMAS[source].classes[label]
        if found == MARK:
            assert all((canonical(c) or c) != word for c in SCHEMAS[target].classes)
        else:
            name = SCHEMAS[target].classes[found]
            assert (canonical(name) or name) == word
    if source == target:
        assert translate(labels, source, target).tolist() == labels


def test_translation_by_hand_and_its_type():
    found = translate(np.array([0, 3, 6], dtype=np.int8), "dfew", "ferv39k")  # Happiness Anger Fear
    assert found.tolist() == [3, 0, 2] and found.dtype == np.int64
    assert counterparts("affectnet8", "dfew") == (2, 0, 1, 4, 6, 5, 3, None)
    assert translate([], "dfew", "mafw").shape == (0,)


def test_a_class_without_a_counterpart_is_an_error_that_counts():
    with pytest.raises(ValueError, match=r"mafw labels without a class in dfew: Anxiety \(2\), Contempt \(1\)\. Leave"):
        translate([1, 0, 2, 1], "mafw", "dfew")
    assert translate([0, 4], "mafw", "dfew").tolist() == [3, 5], "control: classes that do not occur do not matter"
    assert translate([1, 0], "mafw", "dfew", missing="mark").tolist() == [MARK, 3]


@pytest.mark.parametrize(
    ("labels", "message"),
    [([7], r"label 7 is not in 0\.\.6 \(dfew"), ([-1], "label -1 is not in"), ([0.0], "must be whole numbers")],
)
def test_what_cannot_be_translated(labels, message):
    with pytest.raises(ValueError, match=message):
        translate(labels, "dfew", "ferv39k")
    with pytest.raises(ValueError, match="missing must be"):
        translate([0], "dfew", "ferv39k", missing="drop")
