"""What simulated providers answer, from tables and hooks; and files that are put back as they were."""

from __future__ import annotations

import json

import pytest

from shem.devnet.runtime.base import CommandError
from shem.errors import ConfigError
from shem.testing import Reply
from shem.testing.replies import USUAL_SECONDS, Replies, hook_of, read_table
from shem.testing.scratch import Scratch


def table_file(folder, content):
    file = folder / "replies.json"
    file.write_text(content if isinstance(content, str) else json.dumps(content))
    return file


def test_a_table_holds_texts_and_objects(tmp_path):
    table = read_table(
        table_file(
            tmp_path,
            {
                "/bin/a": "text",
                "/bin/b *": {"stdout": "out", "stderr": "err", "exit_code": 2, "seconds": 1.5},
                "/bin/c": {"files": {"/out/x": "content"}},
            },
        )
    )
    assert table == {
        "/bin/a": Reply("text", seconds=USUAL_SECONDS),
        "/bin/b *": Reply("out", "err", 2, 1.5),
        "/bin/c": Reply(seconds=USUAL_SECONDS, files={"/out/x": b"content"}),
    }


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("{", "cannot be read as a table"),
        ([], "must hold an object of patterns and replies, not list"),
        ({"/bin/a": None}, "'/bin/a' must be a text or an object, not null"),
        ({"/bin/a": {"exit": 1}}, "has no field 'exit'; known are stdout"),
        ({"/bin/a": {"exit_code": "1"}}, "exit_code cannot be str '1'"),
        ({"/bin/a": {"exit_code": True}}, "exit_code cannot be bool True"),
        ({"/bin/a": {"files": {"/x": 1}}}, "files must be paths and texts"),
    ],
    ids=["no JSON", "a list", "null", "an unknown field", "a wrong type", "a truth value", "a wrong file"],
)
def test_what_is_no_table_is_refused_with_its_place(tmp_path, content, said):
    file = table_file(tmp_path, content)
    with pytest.raises(ConfigError) as refused:
        read_table(file)
    assert said in str(refused.value) and str(file) in str(refused.value)


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="No such file"):
        read_table(tmp_path / "none.json")


def test_the_first_pattern_that_fits_counts_for_the_program_or_the_whole_line():
    replies = Replies({"/bin/a -x*": Reply("line"), "/bin/a": Reply("program"), "*": Reply("rest")})
    assert replies("/bin/a", ["-x", "1"]).stdout == "line"
    assert replies("/bin/a", ["-y"]).stdout == "program"
    assert replies("/bin/b", ["/bin/a"]).stdout == "rest"
    assert not replies.unscripted
    assert replies.ran == [("/bin/a", ["-x", "1"]), ("/bin/a", ["-y"]), ("/bin/b", ["/bin/a"])]


def test_the_environment_of_a_program_is_looked_through():
    replies = Replies({"/bin/a 1": Reply("found")})
    wrapped = ["-c", 'export A=1; exec "$@"', "sh", "/bin/a", "1"]
    assert replies("/bin/sh", wrapped).stdout == "found"
    assert replies("/bin/sh", ["-c", "echo"]).stdout == ""
    assert list(replies.unscripted) == ["/bin/sh -c echo"]


def test_a_file_that_nobody_wrote_is_empty_unless_scripted():
    replies = Replies(
        {"download /a": Reply("content"), "download /b": Reply(exit_code=1, stderr="no such file")}
    )
    assert replies.content("/a") == b"content"
    assert replies.content("/c") == b""
    with pytest.raises(CommandError, match="no such file"):
        replies.content("/b")
    assert list(replies.unscripted) == ["download /c"]


def test_a_hook_is_inherited_and_a_class_without_one_has_none():
    class First:
        @classmethod
        def fake_provider(cls, program, args):
            return cls.__name__

    class Second(First):
        pass

    hook = hook_of(Second)
    assert hook is not None and hook("/bin/a", []) == "Second"
    assert hook_of(int) is None


def test_files_are_put_back_as_they_were_and_new_ones_removed(tmp_path):
    old, new = tmp_path / "old", tmp_path / "new"
    old.write_text("before")
    scratch = Scratch()
    for text in ("first", "second"):
        for path in (old, new):
            scratch.keep(path)
            path.write_text(text)
        scratch.restore()
        assert old.read_text() == "before" and not new.exists()
    scratch.keep(tmp_path / "never written" / "at all")
    scratch.close()
    assert list(tmp_path.iterdir()) == [old]
