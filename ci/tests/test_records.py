"""Records: round trip, refusal of what is not a record, atomic writing, the chapter's record."""

import json
import subprocess

import pytest

from s4d_lib import records
from s4d_lib.records import InvalidRecord, Record, chapter_record, fingerprint, read_record, results, write_record


def a_record(**changes) -> Record:
    plain = {"name": "n", "kind": "study", "headline": "h", "wall_seconds": 1.5, "peak_memory_mb": 2.0}
    return Record(**plain | changes)


def test_round_trip(tmp_path):
    record = a_record(results={"uar": {"value": 50.0}}, seeds=[0, 1])
    assert read_record(write_record(tmp_path / "deep" / "r.json", record)) == record
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["r.json"], "no temporary file is left"


@pytest.mark.parametrize(
    "change, words",
    [({"kind": "gossip"}, "kind"), ({"unheard_of": 1}, "unheard_of"), ({"wall_seconds": -1}, "wall_seconds"),
     ({"schema_version": 2}, "schema_version")],
)
def test_what_is_not_a_record_is_refused_by_field(tmp_path, change, words):
    path = tmp_path / "r.json"
    path.write_text(json.dumps(a_record().model_dump() | change))
    with pytest.raises(InvalidRecord, match=words) as caught:
        read_record(path)
    assert str(path) in str(caught.value)


def test_missing_and_broken_files_are_named(tmp_path):
    with pytest.raises(InvalidRecord, match="no such record"):
        read_record(tmp_path / "absent.json")
    (tmp_path / "half.json").write_text('{"name": "n"')
    with pytest.raises(InvalidRecord, match="half.json"):
        read_record(tmp_path / "half.json")


def test_nan_never_enters_a_record(tmp_path):
    with pytest.raises(ValueError):
        write_record(tmp_path / "r.json", a_record(results={"uar": float("nan")}))
    assert not (tmp_path / "r.json").exists()


def test_fingerprint_sees_every_change():
    base = {"lr": 1e-3, "blocks": [2, 3]}
    assert fingerprint(base) == fingerprint({"blocks": [2, 3], "lr": 1e-3})
    assert len({fingerprint(base | change) for change in ({}, {"lr": 1e-4}, {"blocks": [3, 2]}, {"x": None})}) == 4


def test_chapter_record_is_written_where_the_runner_asks(tmp_path, monkeypatch):
    monkeypatch.setenv("S4D_CHAPTER_OUT", str(tmp_path))
    record = chapter_record("04_masking", "90 of 100 hidden", {"hidden": 90}, tier="smoke", wall_seconds=0.1)
    assert read_record(tmp_path / "record.json") == record
    monkeypatch.delenv("S4D_CHAPTER_OUT")
    chapter_record("04_masking", "90 of 100 hidden", {}, tier="smoke", wall_seconds=0.1)
    assert len(list(tmp_path.iterdir())) == 1


def test_a_record_knows_whether_the_library_differed_from_its_commit(tmp_path, monkeypatch):
    def git(*words: str) -> None:
        subprocess.run(["git", "-c", "user.name=a", "-c", "user.email=a@b.c", *words], cwd=tmp_path, check=True,
                       capture_output=True)

    library = tmp_path / "library"
    library.mkdir()
    (library / "records.py").write_text("x = 1\n")
    git("init")
    git("add", ".")
    git("commit", "-m", "first")
    monkeypatch.setattr(records, "PACKAGE", library)
    assert len(records.code_state()["commit"]) == 40 and records.code_state()["modified"] is False
    (tmp_path / "chapter.md").write_text("beside the library")
    assert records.code_state()["modified"] is False
    (library / "records.py").write_text("x = 2\n")
    assert records.code_state()["modified"] is True


def test_committed_records_are_valid_and_hold_no_machine_path():
    from s4d_lib.files import RESULTS

    def strings(value):
        if isinstance(value, dict):
            value = [*value, *value.values()]
        return [value] if isinstance(value, str) else sum(map(strings, value), []) if isinstance(value, list) else []

    assert strings({"a": ["/x/y", {"b": "c"}]}) == ["a", "/x/y", "b", "c"]
    for path in RESULTS.glob("*.json"):
        if path.name.startswith("book_"):  # a table of what a run of the book has cost, and no record
            assert not [text for text in strings(json.loads(path.read_text())) if "/" in text and text[0] in "/~"], path
            continue
        record = results(path.stem)
        assert record.headline
        assert not [text for text in strings(record.model_dump()) if text.startswith(("/", "~", "file:"))], path
