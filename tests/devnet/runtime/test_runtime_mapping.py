"""Paths of the activity as paths of the host, in command lines and back in output."""

from itertools import pairwise

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from shem.devnet.runtime.mapping import PathMap

ROOT = "/tmp/shem-devnet-0a1b/1-1/root"
PLACES = {path: ROOT + path for path in ("/golem", "/golem/work", "/tmp", "/data")}
MAP = PathMap(PLACES, [ROOT])


@pytest.mark.parametrize(
    ("text", "mapped"),
    [
        ("/golem", f"{ROOT}/golem"),
        ("/golem/work/a b", f"{ROOT}/golem/work/a b"),
        ("cat /golem/input/a>/golem/output/b", f"cat {ROOT}/golem/input/a>{ROOT}/golem/output/b"),
        ("--file=/data/x", f"--file={ROOT}/data/x"),
        ("'/tmp'", f"'{ROOT}/tmp'"),
        ("PATH=/bin:/golem/bin", f"PATH=/bin:{ROOT}/golem/bin"),
        ("see /golem.", f"see {ROOT}/golem."),
    ],
)
def test_a_path_of_the_activity_is_mapped_wherever_one_begins(text, mapped):
    assert MAP.inward(text) == mapped


@pytest.mark.parametrize(
    "text",
    [
        "/golems/x",
        "/golem-old",
        "/golem.d/x",
        "/var/tmp/x",
        "http://host/golem/x",
        "./golem/x",
        "../golem",
        "${HOME}/golem",
        "$(pwd)/tmp/x",
        "~/data",
        "golem/work",
        "",
    ],
)
def test_what_only_looks_like_one_is_left_alone(text):
    assert MAP.inward(text) == text


@given(st.text(alphabet="/golemwrkdatp .-'=", max_size=60))
def test_output_mapping_takes_back_what_mapping_did(text):
    got = []
    outward = MAP.outward(got.append)
    outward(MAP.inward(text).encode())
    outward.flush()
    assert b"".join(got).decode() == text


@given(
    st.lists(st.sampled_from([ROOT, "/golem/work", "x", "/tmp/shem", "\n", ROOT[:-1], "é"]), max_size=12),
    st.lists(st.integers(0, 200), max_size=12),
)
@example([ROOT, ROOT], [1, len(ROOT)])
def test_how_output_is_cut_into_pieces_does_not_matter(parts, cuts):
    whole = "".join(parts).encode()
    expected = whole.replace(ROOT.encode(), b"")
    got = []
    outward = MAP.outward(got.append)
    places = sorted({0, *(cut % (len(whole) + 1) for cut in cuts), len(whole)})
    for begin, end in pairwise(places):
        outward(whole[begin:end])
    outward.flush()
    assert b"".join(got) == expected
    assert b"" not in got


def test_a_message_for_people_reads_as_it_does_inside():
    assert MAP.readable(f"no {ROOT}/golem/x, no /usr/x") == "no /golem/x, no /usr/x"


def test_output_that_cannot_be_a_path_is_not_held_back():
    got = []
    outward = MAP.outward(got.append)
    outward(b"ready\n")
    assert got == [b"ready\n"]
