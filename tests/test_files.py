"""JSON on disk: what is refused, and lines that survive a kill."""

import json

import pytest

from slimjax import files
from slimjax.errors import UserError
from slimjax.files import write_atomic


def load(path):
    return files.load(path, "recipe", 2, lambda body: body["eggs"], "Write one", "Mend it")


def append(path, *lines) -> None:
    with files.open_lines(path) as file:
        files.write_lines(file, lines)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "no such file. Write one"),
        ('{"schema": 2, "eggs"', "not a whole JSON file .*Mend it"),
        ('{"schema": 2, "eggs": NaN}', ".*NaN is not a finite number"),
        ('{"schema": 2, "eggs": 1e999}', ".*1e999 is not a finite number"),
        ('{"schema": 1, "eggs": 3}', "expected schema 2, got 1. Mend it"),
        ("[2]", "expected schema 2, got 'list'"),
        ('{"schema": 2}', "lacks 'eggs'. Mend it"),
    ],
)
def test_a_file_of_no_use_says_which_why_and_what_to_do(tmp_path, text, message):
    path = tmp_path / "r.json"
    if text is not None:
        path.write_text(text)
    with pytest.raises(UserError, match=r"recipe .*r\.json: " + message):
        load(path)


def test_a_directory_is_no_file(tmp_path):
    with pytest.raises(UserError, match="Is a directory"):
        load(tmp_path)


def test_a_good_file_is_what_is_made_of_it(tmp_path):
    (tmp_path / "r.json").write_text('{"schema": 2, "eggs": 3.5}')
    assert load(tmp_path / "r.json") == 3.5


@pytest.mark.parametrize("cut", range(1, 9))
def test_a_line_that_was_cut_short_is_left_out_and_the_next_begins_a_line(tmp_path, cut):
    path = tmp_path / "new" / "l.jsonl"
    append(path, {"a": 1}, {"a": 2})
    path.write_text(path.read_text()[:-cut])
    assert files.read_lines(path, "numbers", lambda line: line["a"]) == [1]
    append(path, {"a": 3})
    assert files.read_lines(path, "numbers", lambda line: line["a"]) == [1, 3]


@pytest.mark.parametrize("line", ['{"a": 2', '{"b": 2}', "2"])
def test_a_damaged_line_is_named(tmp_path, line):
    path = tmp_path / "l.jsonl"
    path.write_text(f'{{"a": 1}}\n{line}\n{{"a": 3}}\n')
    with pytest.raises(UserError, match=r"l\.jsonl:2 is not a line of numbers: .*\. Mend the line"):
        files.read_lines(path, "numbers", lambda line: line["a"])


def test_lines_are_on_the_disk_before_the_file_is_closed(tmp_path):
    with files.open_lines(tmp_path / "l.jsonl") as file:
        files.write_lines(file, [{"a": 1}])
        assert json.loads((tmp_path / "l.jsonl").read_text()) == {"a": 1}


def test_a_line_with_nan_is_refused(tmp_path):
    with pytest.raises(ValueError, match="not JSON compliant"):
        append(tmp_path / "l.jsonl", {"a": float("nan")})


def test_atomic_write_leaves_the_old_text_when_it_fails(tmp_path):
    write_atomic(tmp_path / "file", "old")
    with pytest.raises(UnicodeEncodeError):
        write_atomic(tmp_path / "file", "new \udcff")
    assert (tmp_path / "file").read_text() == "old"
