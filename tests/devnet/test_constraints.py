"""The market's constraint language, against the contract's words and against a second, naive evaluator."""

import math
import operator
import re
import sys
import time
from datetime import datetime
from fractions import Fraction

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from shem.devnet import constraints
from shem.devnet.constraints import MAX_NESTING, Constraint, ConstraintError, matches, parse
from shem.devnet.properties import flatten, read_decimal, read_moment, read_number, read_version

YAPAPI = (
    "(&(golem.node.debug.subnet=public)\n\t(golem.com.payment.platform.erc20-holesky-tglm.address=*)\n\t"
    "(golem.com.payment.protocol.version>1)\n\t(golem.com.pricing.model=linear)\n\t"
    "(&(golem.inf.mem.gib>=0.5)\n\t(golem.inf.storage.gib>=2.0)\n\t(golem.inf.cpu.threads>=1)\n\t"
    "(golem.runtime.name=vm)))"
)
OFFER = {
    "golem.node.debug.subnet": "public",
    "golem.com.payment.platform.erc20-holesky-tglm.address": "0x4d",
    "golem.com.payment.protocol.version": 3,
    "golem.com.pricing.model": "linear",
    "golem.inf.mem.gib": 8.0,
    "golem.inf.storage.gib": 20.0,
    "golem.inf.cpu.threads": 4,
    "golem.runtime.name": "vm",
    "golem.runtime.capabilities": ["vpn", "inet", "manifest-support"],
}

# --- the contract's cases ---------------------------------------------------------------------------------

UNDEFINED = None
CASES = [
    # Groups, and what holds of none.
    ("()", {}, True),
    ("(&)", {}, True),
    ("(|)", {}, False),
    ("(!())", {}, False),
    (" ( & (a=1) \t\r\n (b=2) ) \n", {"a": 1, "b": 2}, True),
    ("(&(a=1)(b=2))", {"a": 1, "b": 3}, False),
    ("(|(a=1)(b=2))", {"a": 1, "b": 3}, True),
    ("(|(a=1)(b=2))", {"a": 0, "b": 3}, False),
    ("(!(a=1))", {"a": 1}, False),
    ("(!(a=1))", {"a": 2}, True),
    # What is missing.
    ("(p=*)", {}, False),
    ("(!(p=*))", {}, True),
    ("(p=* )", {"p": ""}, True),
    ("(p=x)", {}, UNDEFINED),
    ("(p<1)", {}, UNDEFINED),
    ("(!(p=x))", {}, UNDEFINED),
    ("(&(p=x)(a=1))", {"a": 1}, UNDEFINED),
    ("(&(p=x)(a=1))", {"a": 2}, False),
    ("(|(p=x)(a=1))", {"a": 1}, True),
    ("(|(p=x)(a=1))", {"a": 2}, UNDEFINED),
    ("(p=*)", {"p": None}, False),
    ("(p=x)", {"p": None}, UNDEFINED),
    ("(p=*)", {"p": {"q": 1}}, False),
    ("(p=*)", {"p": ["x", None]}, False),
    ("(p=*)", {"p": [["x"]]}, False),
    ("(p=*)", {"p": []}, True),
    # Names and values are taken as they stand.
    ("(a = b)", {"a": "b"}, UNDEFINED),
    ("(a = b)", {"a ": " b"}, True),
    ("(a=b )", {"a": "b "}, True),
    ("(a!=b)", {"a": "c"}, UNDEFINED),
    ("(a=)", {"a": ""}, True),
    ("(a=x=y<z)", {"a": "x=y<z"}, True),
    ("(a=(b)", {"a": "(b"}, True),
    (
        "(golem.com.payment.debit-notes.accept-timeout?>=5)",
        {"golem.com.payment.debit-notes.accept-timeout?": 240},
        True,
    ),
    ("(p[unit]=gib)", {"p": 1}, UNDEFINED),
    ("(p[unit]=*)", {"p": 1}, False),
    # Strings: equal, with wildcards, in byte order.
    ("(a=vm)", {"a": "vm-nvidia"}, False),
    ("(a=vm*)", {"a": "vm-nvidia"}, True),
    ("(a=v*n*a)", {"a": "vm-nvidia"}, True),
    ("(a=ab*ba)", {"a": "aba"}, False),
    ("(a=v.)", {"a": "vm"}, False),
    ("(a=v.*)", {"a": "vm"}, False),
    ("(a=v[a-z]*)", {"a": "vm"}, False),
    ("(a>1)", {"a": "3"}, True),
    ("(a>10)", {"a": "9"}, True),
    ("(a<b)", {"a": "B"}, True),
    ("(a>\uffff)", {"a": "\U0001f600"}, True),
    # Numbers: as f64.
    ("(a=4)", {"a": 4.0}, True),
    ("(a=4.0e0)", {"a": 4}, True),
    ("(a>=0.5)", {"a": 0.5}, True),
    ("(a<.5)", {"a": 0}, True),
    ("(a>1795321105388)", {"a": 1795321105389}, True),
    ("(a=9007199254740993)", {"a": 9007199254740992}, True),
    ("(a=inf)", {"a": 10**400}, True),
    ("(a=4 )", {"a": 4}, False),
    ("(a=1_0)", {"a": 10}, False),
    ("(a=four)", {"a": 4}, False),
    ("(a<four)", {"a": 4}, False),
    ("(!(a<four))", {"a": 4}, True),
    ("(a=nan)", {"a": math.nan}, False),
    # Booleans: equal or not, and nothing else.
    ("(a=true)", {"a": True}, True),
    ("(a=false)", {"a": False}, True),
    ("(a=True)", {"a": True}, False),
    ("(a=1)", {"a": True}, False),
    ("(a>=true)", {"a": True}, False),
    # Lists: membership, or equality as sets.
    ("(golem.runtime.capabilities=vpn)", OFFER, True),
    ("(golem.runtime.capabilities=sgx)", OFFER, False),
    ("(golem.runtime.capabilities=manifest*)", OFFER, True),
    ("(a=2)", {"a": [1, 2.0]}, True),
    ("(a=true)", {"a": [1, True]}, True),
    ("(a=[x,y])", {"a": ["y", "x"]}, True),
    ("(a=[ x , y ])", {"a": ["x", "y"]}, True),
    ("(a=[x,y])", {"a": ["x"]}, False),
    ("(a=[x])", {"a": ["x", "y"]}, False),
    ("(a=[x,x])", {"a": ["x"]}, True),
    ("(a=[1])", {"a": [1]}, True),
    ("(a=[])", {"a": []}, True),
    ("(a=[])", {"a": [""]}, False),
    ("(a=[x,y])", {"a": "[x,y]"}, True),
    ("(a<z)", {"a": ["x"]}, False),
    # Text read as another type.
    ("(a$d>9)", {"a": "10"}, True),
    ("(a$d=10.0)", {"a": "10"}, True),
    ("(a$d=0.1)", {"a": "0.1000000000000000000001"}, False),
    ("(a$d>9)", {"a": 10}, UNDEFINED),
    ("(a$d>9)", {"a": "ten"}, UNDEFINED),
    ("(a$d>nine)", {"a": "10"}, False),
    ("(a$d=*)", {"a": "ten"}, True),
    ("(a$v>=0.10.0)", {"a": "0.9.9"}, False),
    ("(a$v>=0.4.1)", {"a": "0.5.3"}, True),
    ("(a$v<1.0.0)", {"a": "1.0.0-rc.10"}, True),
    ("(a$v<1.0.0-rc.10)", {"a": "1.0.0-rc.9"}, True),
    ("(a$v<1.0.0-rc.a)", {"a": "1.0.0-rc.9"}, True),
    ("(a$v<1.0.0-rc.1)", {"a": "1.0.0-rc"}, True),
    ("(a$v=1.0.0)", {"a": "1.0.0+build.7"}, True),
    ("(a$v>1.0)", {"a": "2.0.0"}, False),
    ("(a$v>1.0.0)", {"a": "2.0"}, UNDEFINED),
    ("(a$t<2026-01-01T00:00:00Z)", {"a": "2025-12-31T23:59:59.999999999Z"}, True),
    ("(a$t=2026-01-01T00:00:00Z)", {"a": "2026-01-01T02:00:00.000+02:00"}, True),
    ("(a$t>2026-01-01T00:00:00.09Z)", {"a": "2026-01-01T00:00:00.1Z"}, True),
    ("(a$t>yesterday)", {"a": "2026-01-01T00:00:00Z"}, False),
    ("(a$t>2026-01-01T00:00:00Z)", {"a": "2026-01-01"}, UNDEFINED),
    # What the software out there sends.
    (YAPAPI, OFFER, True),
    (YAPAPI, OFFER | {"golem.inf.mem.gib": 0.25}, False),
    ("(&(golem.inf.cpu.cores>=1)(golem.runtime.name=vm))", OFFER, UNDEFINED),
    (
        "(&\n (golem.srv.comp.expiration>1795321105388)\n (golem.node.debug.subnet=public)\n)",
        {"golem.srv.comp.expiration": 1795321105389, "golem.node.debug.subnet": "public"},
        True,
    ),
    ("(golem.com.payment.protocol.version>1)", {"golem.com.payment.protocol.version": "3"}, True),
]


@pytest.mark.parametrize(("text", "properties", "answer"), CASES)
def test_the_contracts_cases(text, properties, answer):
    assert parse(text).evaluate(properties) is answer
    assert matches(text, properties) is (answer is True)


WRONG = [
    ("", 0),
    (" \n", 2),
    ("a=b", 0),
    ("(", 0),
    ("( )", 2),
    ("(a)", 2),
    ("(a~=b)", 2),
    ("((a=b))", 1),
    ("(=b)", 1),
    ("(a=b", 0),
    ("(a=*", 0),
    ("(&(a=b)", 0),
    ("(&(a=b) c)", 8),
    ("(!)", 2),
    ("(!(a=b)(c=d))", 7),
    ("(a=*foo)", 3),
    ("(a=b) (c=d)", 6),
    ("(a$x=1)", 1),
    ("(a[b=1)", 1),
]


@pytest.mark.parametrize(("text", "position"), WRONG)
def test_what_is_no_constraint_is_refused_with_the_place(text, position):
    with pytest.raises(ConstraintError) as caught:
        parse(text)
    assert caught.value.position == position
    assert f"at character {position}" in str(caught.value)
    assert isinstance(caught.value, ValueError)


def test_the_message_shows_what_surrounds_the_fault_and_not_a_long_text():
    with pytest.raises(ConstraintError) as caught:
        parse(f"(&{'(a=b)' * 100}(mem~=4){'(a=b)' * 100})")
    assert "(mem▸~=4)" in str(caught.value)
    assert len(str(caught.value)) < 200


# --- limits -----------------------------------------------------------------------------------------------


def test_nesting_is_limited_by_an_error_and_never_by_the_stack():
    deepest = "(!" * MAX_NESTING + "(a=1)" + ")" * MAX_NESTING
    assert parse(deepest).evaluate({"a": 1}) is True
    for depth in (MAX_NESTING + 1, sys.getrecursionlimit() * 10):
        with pytest.raises(ConstraintError, match="nested more than") as caught:
            parse("(&" * depth)
        assert caught.value.position == 2 * MAX_NESTING


def test_the_same_text_is_parsed_once_and_what_is_kept_is_bounded():
    assert parse(YAPAPI) is parse(YAPAPI)
    for number in range(1000):
        parse(f"(a={number})")
    kept = constraints._parse_cached.cache_info()
    assert kept.currsize <= kept.maxsize
    long_text = f"(a={'x' * constraints.CACHED_LENGTH})"
    assert parse(long_text) == parse(long_text)
    assert constraints._parse_cached.cache_info().misses == kept.misses


@pytest.mark.parametrize(
    "make",
    [
        lambda n: f"(&{'(a=b)' * (n // 5)})",
        lambda n: f"({'a' * n}",
        lambda n: "(a=b" * (n // 4),
        lambda n: f"(a={'b*' * (n // 2)})",
        lambda n: f"(a=[{'b,' * (n // 2)}])",
        lambda n: f"(a={'1' * n})",
        lambda n: f"(a$d={'1' * n})",
        lambda n: f"(a$v=1.0.0-{'1.' * (n // 2)}é)",
    ],
)
def test_parsing_takes_time_in_proportion_to_the_text(make):
    def seconds(length):
        text = make(length)
        best = math.inf
        for _ in range(3):
            begin = time.process_time()
            try:
                constraints._parse(text)
            except ConstraintError:
                pass
            best = min(best, time.process_time() - begin)
        return best

    # Ten times the text may take ten times as long and then some; were it quadratic, a hundred times.
    assert seconds(100_000) < 40 * seconds(10_000) + 0.02


def test_many_wildcards_are_tried_without_backtracking():
    begin = time.process_time()
    assert not matches(f"(a={'a*' * 50}b)", {"a": "a" * 10_000})
    assert time.process_time() - begin < 1


def test_the_clients_usual_constraint_is_answered_quickly():
    constraint, rounds = parse(YAPAPI), 1000
    begin = time.process_time()
    for _ in range(rounds):
        assert constraint.evaluate(OFFER)
    assert (time.process_time() - begin) / rounds < 100e-6


# --- a second evaluator -----------------------------------------------------------------------------------
#
# It reads the grammar word by word, answers while it reads, and knows nothing of the parser under test.


class Refused(Exception):
    pass


ORDERS = {"=": operator.eq, "<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge}


def naive(text, properties):
    answer, rest = naive_filter(text.lstrip(" \t\r\n"), properties)
    if rest.strip(" \t\r\n"):
        raise Refused
    return answer


def naive_filter(text, properties):
    if text.startswith("()"):
        return True, text[2:]
    if not text.startswith("("):
        raise Refused
    body = text[1:].lstrip(" \t\r\n")
    if body[:1] not in ("&", "|", "!"):
        return naive_simple(body, properties)
    symbol, body, answers = body[0], body[1:].lstrip(" \t\r\n"), []
    while body.startswith("("):
        answer, body = naive_filter(body, properties)
        answers.append(answer)
        body = body.lstrip(" \t\r\n")
    if not body.startswith(")") or (symbol == "!" and len(answers) != 1):
        raise Refused
    # False < undefined < True, as Kleene has it: AND is the least of all, OR the greatest.
    ranks = [{False: 0, None: 1, True: 2}[answer] for answer in answers]
    rank = {"&": min(ranks, default=2), "|": max(ranks, default=0), "!": 2 - ranks[0] if ranks else 0}[symbol]
    return (False, None, True)[rank], body[1:]


def naive_simple(body, properties):
    found = re.match(
        r"([^=<>~()\[\]$]*)(\[[^=<>~()\[\]$]*\])?(?:\$([dvt]))?(<=|<|>=|>|=)([^)]*)\)", body, re.DOTALL
    )
    if not found or found.start(4) == 0:
        raise Refused
    name, aspect, kind, symbol, value = found.groups()
    there = is_odd_free(properties.get(name))
    if symbol == "=" and value.startswith("*"):
        if value.rstrip(" \t\r\n") != "*":
            raise Refused
        return there and not aspect, body[found.end() :]
    if aspect or not there:
        return None, body[found.end() :]
    return naive_comparison(properties[name], kind, symbol, value), body[found.end() :]


def is_odd_free(value):
    if isinstance(value, list):
        return all(not isinstance(item, list) and is_odd_free(item) for item in value)
    return type(value) in (str, bool, int, float)


def naive_comparison(value, kind, symbol, text):
    if kind:
        read = {"d": naive_decimal, "v": naive_version, "t": naive_time}[kind]
        left = read(value) if isinstance(value, str) else None
        right = read(text)
        return None if left is None else right is not None and ORDERS[symbol](left, right)
    if symbol == "=":
        return naive_equal(value, text)
    if isinstance(value, str):
        return ORDERS[symbol](value.encode(), text.encode())
    if isinstance(value, (bool, list)):
        return False
    number = naive_number(text)
    return number is not None and ORDERS[symbol](float(value), number)


def naive_equal(value, text):
    if isinstance(value, str):
        return bool(re.fullmatch(".*".join(map(re.escape, text.split("*"))), value, re.DOTALL))
    if isinstance(value, bool):
        return text == repr(value).lower()
    if isinstance(value, (int, float)):
        return naive_number(text) == float(value)
    if re.fullmatch(r"\[[^\[\]]*\]", text, re.DOTALL):
        inner = text[1:-1].strip(" \t\r\n")
        wanted = [part.strip(" \t\r\n") for part in inner.split(",")] if inner else []
        pairs = {(i, j) for i, a in enumerate(value) for j, b in enumerate(wanted) if naive_equal(a, b)}
        return len({i for i, _ in pairs}) == len(value) and len({j for _, j in pairs}) == len(wanted)
    return any(naive_equal(item, text) for item in value)


def naive_number(text):
    if text != text.strip() or "_" in text or not text.isascii():
        return None
    try:
        return float(text)
    except ValueError:
        return None


def naive_decimal(text):
    number = naive_number(text)
    return Fraction(text) if number is not None and math.isfinite(number) else None


def naive_version(text):
    numbers, _, pre_release = text.partition("+")[0].partition("-")
    parts = numbers.split(".")
    if len(parts) != 3 or any(not part.isdigit() or part != str(int(part)) for part in parts):
        return None
    words = [(not w.isdigit(), int(w) if w.isdigit() else w) for w in pre_release.split(".")]
    return [int(part) for part in parts], not pre_release, words


def naive_time(text):
    try:
        return datetime.fromisoformat(text)
    except ValueError:
        return None


NAMES = st.sampled_from(["a", "b.c", "d-e?", "f ", "missing"])
BLANKS = st.text(" \t\r\n", max_size=2)
NUMBERS = st.one_of(st.integers(-3, 3), st.sampled_from([0.5, -1.25, 1e300, 2**53 + 1]))
STRINGS = st.text("ab*1.[], é\U0001f600", max_size=5)
VERSIONS = st.sampled_from(["1.0.0", "1.0.0-a", "1.0.0-a.1", "1.0.0-2", "1.0.0-10", "0.9.10", "1.2.3+x"])
TIMES = st.sampled_from(
    [
        "2026-01-01T00:00:00Z",
        "2026-01-01T00:00:00.5Z",
        "2026-01-01T01:00:00+02:00",
        "2025-12-31T23:00:00-01:00",
    ]
)
DECIMALS = st.sampled_from(["1", "1.0", "-2.5e1", "0.10", "10"])
SCALARS = st.one_of(STRINGS, VERSIONS, TIMES, DECIMALS, NUMBERS, st.booleans())
VALUES = st.one_of(SCALARS, st.lists(SCALARS, max_size=3), st.sampled_from([None, [None], [["a"]]]))
PROPERTIES = st.dictionaries(NAMES, VALUES, max_size=5).map(lambda p: {**p, "missing": None})


@st.composite
def simple_filters(draw):
    name = draw(NAMES) + draw(st.sampled_from(["", "", "", "$d", "$v", "$t", "[x]", "[x]$d"]))
    if draw(st.booleans()) and draw(st.booleans()):
        return f"({draw(BLANKS)}{name}=*{draw(BLANKS)})"
    value = draw(
        st.one_of(
            SCALARS.map(lambda v: str(v).lower() if isinstance(v, bool) else str(v)),
            st.lists(STRINGS, max_size=3).map(lambda items: f"[{','.join(items)}]"),
        )
    )
    symbol = draw(st.sampled_from([*ORDERS, "=", "="]))
    return f"({draw(BLANKS)}{name}{symbol}{value if symbol != '=' else value.lstrip('*')})"


@st.composite
def groups(draw, inner):
    symbol = draw(st.sampled_from("&|!"))
    parts = draw(st.lists(inner, min_size=symbol == "!", max_size=1 if symbol == "!" else 3))
    padded = "".join(f"{draw(BLANKS)}{part}" for part in parts)
    return f"({draw(BLANKS)}{symbol}{padded}{draw(BLANKS)})"


FILTERS = st.recursive(st.one_of(simple_filters(), st.just("()")), groups, max_leaves=8)


@given(FILTERS, PROPERTIES)
def test_every_constraint_is_answered_as_the_naive_evaluator_answers_it(text, properties):
    assert parse(text).evaluate(properties) is naive(text, properties)


@given(st.text("()&|!=*<>~ab1$d[], \n", max_size=25), st.dictionaries(st.sampled_from("ab"), SCALARS))
@example("(a$d=1_0)", {"a": "1"})
@example("(a\n=*\n)", {"a": "1"})
def test_any_text_is_a_constraint_for_both_or_for_neither(text, properties):
    try:
        expected = naive(text, properties)
    except Refused:
        with pytest.raises(ConstraintError) as caught:
            parse(text)
        assert 0 <= caught.value.position <= len(text)
    else:
        assert parse(text).evaluate(properties) is expected


@given(st.text(), st.dictionaries(st.text(), st.none() | st.integers() | st.floats() | st.text()))
def test_nothing_but_a_constraint_error_ever_comes_out(text, properties):
    for candidate in (text, f"({text})", f"(a{text})", f"(a={text})"):
        try:
            constraint = parse(candidate)
        except ConstraintError:
            continue
        assert isinstance(constraint, Constraint)
        assert constraint.evaluate(properties) in (True, False, None)


@given(st.lists(FILTERS, max_size=4), PROPERTIES)
def test_and_and_or_are_each_others_mirror(parts, properties):
    both = parse(f"(!(&{''.join(parts)}))").evaluate(properties)
    mirrored = parse(f"(|{''.join(f'(!{part})' for part in parts)})").evaluate(properties)
    assert both is mirrored


# --- reading values ---------------------------------------------------------------------------------------


@given(st.text())
@example("1e99999999999999999999")
@example("9" * 5000 + ".0.0")
@example("0001-01-01T00:00:00+23:59")
@example("2026-13-01T00:00:00Z")
@example("2026-01-01T00:00:99Z")
def test_reading_never_raises_and_keeps_to_one_kind(text):
    kinds = [read for read in (read_number, read_version, read_moment) if read(text) is not None]
    assert len(kinds) <= 1
    assert read_decimal(text) is None or read_number(text) is not None


@given(st.datetimes(datetime(1000, 1, 1), datetime(9000, 1, 1)), st.datetimes(datetime(1000, 1, 1)))
def test_moments_are_ordered_as_times_are(one, other):
    left, right = read_moment(one.isoformat() + "Z"), read_moment(other.isoformat() + "Z")
    assert left is not None
    assert right is not None
    assert (left < right) is (one < other)
    assert (left == right) is (one == other)


def test_a_leap_second_is_the_one_before_midnight():
    assert read_moment("2016-12-31T23:59:60Z") == read_moment("2017-01-01T00:00:00Z")


# --- flat properties --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("nested", "flat"),
    [
        ({}, {}),
        ({"golem": {"inf": {"mem.gib": 8}}}, {"golem.inf.mem.gib": 8}),
        (
            {"golem.inf": {"mem": {"gib": 8}}, "golem.inf.cpu": 1},
            {"golem.inf.mem.gib": 8, "golem.inf.cpu": 1},
        ),
        ({"a": {}, "b": {"c": {}}}, {}),
        ({"a": [{"b": 1}], "c": None}, {"a": [{"b": 1}], "c": None}),
        ({"a": {"b": 1}, "a.b": 2}, {"a.b": 2}),
        ({"a": {"model": {"@tag": "linear", "linear": 1}}}, {"a.model": "linear", "a.model.linear": 1}),
        ({"a?": {"b?": 1}}, {"a?.b?": 1}),
    ],
)
def test_nested_properties_become_dotted_names(nested, flat):
    assert flatten(nested) == flat


@given(
    st.recursive(
        st.dictionaries(st.text("ab", min_size=1), st.integers(), max_size=3),
        lambda inner: st.dictionaries(st.text("ab", min_size=1), st.integers() | inner, max_size=3),
    )
)
def test_every_leaf_is_found_under_the_path_that_led_to_it(nested):
    def leaves(node, path=()):
        for key, value in node.items():
            yield from leaves(value, (*path, key)) if isinstance(value, dict) else [((*path, key), value)]

    flat = flatten(nested)
    assert flat == {".".join(path): value for path, value in leaves(nested)}
    assert flatten(flat) == flat


def test_deep_properties_do_not_exhaust_the_stack():
    nested = 1
    for _ in range(sys.getrecursionlimit() * 2):
        nested = {"a": nested}
    assert list(flatten(nested).values()) == [1]
