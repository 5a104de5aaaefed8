"""datasets/lists.py by itself: text of any origin comes out as the same rows, a bad row is named by file and line."""

import csv
import os

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from s4d_lib.datasets.arrays import npy_rows, table_dicts
from s4d_lib.datasets.lists import (
    DataRoot,
    Row,
    RowError,
    clean,
    csv_dicts,
    csv_rows,
    encoding_of,
    frame_files,
    require_columns,
    tab_rows,
    text_lines,
    word_rows,
)

LINES = [(1, "clip 愤怒\t3"), (4, "clip b\t4")]
TEXT = "clip 愤怒\t3\r\n\r\n   \nclip b\t4"


@pytest.mark.parametrize("encoding, others", [
    ("utf-8", ()), ("utf-8-sig", ()), ("utf-16", ()), ("gb18030", ("gb18030",)), ("gb18030", ("ascii", "gb18030"))])
def test_lines_are_the_same_in_any_encoding(tmp_path, encoding, others):
    path = tmp_path / "list.txt"
    path.write_bytes(TEXT.encode(encoding))
    assert list(text_lines(path, others)) == LINES, "blank lines are left out and counted"


def test_text_that_is_none_is_refused_by_name(tmp_path):
    path = tmp_path / "list.txt"
    for content, words in ((TEXT.encode("gb18030"), "the text is not UTF-8; save the list as UTF-8"),
                           (TEXT.encode("utf-16")[2:], "UTF-16 without its mark, or no text"),
                           (b"\xff\xfe\x00\xd8", "the text is not UTF-16, as its mark says")):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=words) as refused:
            encoding_of(path)
        assert str(refused.value).startswith(f"{path}: ")


@pytest.mark.parametrize("read, text, rows, line, words", [
    (word_rows, "a b/c.jpg 3\nalone\n d.png  4\n", [Row(1, "a b/c.jpg", "3"), Row(3, "d.png", "4")], 2,
     "expected `<relative path> <label>`, got 'alone'"),
    (lambda path, bad: tab_rows(path, 2, bad=bad), "a\t3\nb\t4\t5\n c \t6\n", [(1, ["a", "3"]), (3, ["c", "6"])], 2,
     "expected 2 fields between tabs"),
    (lambda path, bad: csv_rows(path, ("id", "label"), bad=bad), "id,label\n1,2\n3\n,\n5, 6\n",
     [Row(2, "1", "2"), Row(5, "5", "6")], 3, "expected id,label, got '3'"),
    (lambda path, bad: csv_rows(path, ("id", "label"), bad=bad), "id,label\n1,2\nid,label\n5,6\n",
     [Row(2, "1", "2"), Row(4, "5", "6")], 3, "the header stands here again"),
])
def test_a_bad_row_is_named_and_the_others_are_read(tmp_path, read, text, rows, line, words):
    path, found = tmp_path / "list", []
    path.write_text(text)
    assert list(read(path, bad=found.append)) == rows
    (error,) = found
    assert error.kind == "row" and str(error).startswith(f"{path}:{line}: ") and words in str(error)

    def stop(error: RowError) -> None:
        raise error

    with pytest.raises(RowError, match=f":{line}: "):
        list(read(path, bad=stop))


field = st.text(st.characters(exclude_categories=("Cs", "Cc")), max_size=6).map(str.strip)


@given(st.lists(st.tuples(field, field, field).filter(any), max_size=6))
def test_what_a_spreadsheet_writes_is_read_back(tmp_path_factory, rows):
    path = tmp_path_factory.mktemp("csv") / "list.csv"
    with open(path, "w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("a", "b", "c"), *rows, ("", "", "")])  # they end in rows of commas alone
    (_, header), *found = csv_dicts(path)
    assert tuple(header) == ("a", "b", "c")
    assert [tuple(row.values()) for _, row in found] == rows


def test_tables_of_tabs_and_of_commas_are_one_table(tmp_path):
    (tmp_path / "list.csv").write_text('id,label\n"a, b",3\n')
    (tmp_path / "list.tsv").write_text("id\tlabel\na, b\t3\n")
    rows = [(1, {"id": "", "label": ""}), (2, {"id": "a, b", "label": "3"})]
    assert list(table_dicts(tmp_path / "list.csv")) == list(table_dicts(tmp_path / "list.tsv")) == rows
    (tmp_path / "empty.csv").write_text("")
    assert list(csv_dicts(tmp_path / "empty.csv")) == [(1, {})]
    (tmp_path / "open.csv").write_text('id,label\n"a,3\n')
    with pytest.raises(RowError, match=r"open.csv:2: not a CSV row"):
        list(csv_dicts(tmp_path / "open.csv"))
    with pytest.raises(RowError, match="open.csv:1: expected the header name,label, got 'id,label'"):
        list(csv_rows(tmp_path / "open.csv", ("name", "label")))
    with pytest.raises(ValueError, match="no column fold, split; the table has id, label"):
        require_columns(tmp_path / "list.csv", rows[0][1], ("id", "fold", "split"))


def test_arrays_hold_text_and_whole_numbers_and_no_objects(tmp_path):
    names, labels, other = (tmp_path / f"{name}.npy" for name in ("names", "labels", "other"))
    np.save(names, np.array(["a", "b", "愤怒"]))
    np.save(labels, np.array([3, 0, 6]))
    assert list(npy_rows(names, labels)) == [Row(1, "a", "3"), Row(2, "b", "0"), Row(3, "愤怒", "6")]
    assert [row.label for row in npy_rows(names, None)] == [None] * 3
    for array, words in ((np.array(["a", {}], object), "holds Python objects"), (np.array([1, 2]), "3 names, but .* 2"),
                         (np.array([1.0, 2.0, 3.0]), "expected a list of whole numbers, got float64"),
                         (np.array([[1, 2, 3]]), r"got int64 \[1, 3\]")):
        np.save(other, array)
        with pytest.raises(ValueError, match=words):
            list(npy_rows(names, other))
    labels.write_bytes(labels.read_bytes()[:-1])
    with pytest.raises(ValueError, match="labels.npy: not a readable .npy array"):
        list(npy_rows(names, labels))


@pytest.mark.parametrize("name", ["", "..", "a/../b", "/etc/passwd", "C:\\x", "\\x", "a\0b"])
def test_names_that_leave_the_folder_are_refused(name):
    with pytest.raises(RowError, match="list:3: .* is not a name inside the data folder") as refused:
        clean(name, "list:3")
    assert refused.value.kind == "name"
    assert clean("a\\b/./c.jpg", "list:3") == "a/b/c.jpg", "control: separators of Windows are understood"


def test_links_out_of_the_folder_and_pipes_are_refused(tmp_path):
    root, away = tmp_path / "root", tmp_path / "away"
    for folder in (root / "clips" / "00001", away):
        folder.mkdir(parents=True)
    (away / "1.jpg").touch()
    (root / "clips" / "linked").symlink_to(away)
    (root / "inside").symlink_to(root / "clips" / "00001")
    DataRoot(root).check(root / "inside", "list:1")
    with pytest.raises(RowError, match="list:2: .*linked is a link that leads out of .*links='follow'") as refused:
        DataRoot(root).check(root / "clips" / "linked", "list:2")
    assert refused.value.kind == "link"
    DataRoot(root, links="follow").check(root / "clips" / "linked", "list:2")
    named = DataRoot(root)
    assert named.folder(str(away)) == away
    named.check(root / "clips" / "linked", "list:2")  # a folder that the caller names is a root too
    os.mkfifo(root / "clips" / "00001" / "2.jpg")
    with pytest.raises(RowError, match="2.jpg is not a file; remove it"):
        DataRoot(root).check(root / "clips" / "00001", "list:3")
    with pytest.raises(FileNotFoundError, match="no such folder of clips; folders beside it: clips, inside"):
        DataRoot(root).folder("clip")
    (root / "train.csv").touch()
    with pytest.raises(FileNotFoundError, match="lists found beside it: train.csv; also looked for b.csv"):
        DataRoot(root).listing("a.csv", "b.csv")
    assert DataRoot(root).listing("a.csv", "train.csv") == root / "train.csv"


def test_frames_are_pictures_that_are_not_hidden(tmp_path):
    for name in ("2.jpg", "10.PNG", ".3.jpg", "notes.txt"):
        (tmp_path / name).touch()
    (tmp_path / "4.jpg").symlink_to(tmp_path / "nothing")
    (tmp_path / "5.jpg").mkdir()
    assert sorted(entry.name for entry in frame_files(tmp_path)) == ["10.PNG", "2.jpg", "4.jpg"]
