"""Names, subjects and labels: what is accepted, and what the refusal tells."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from broker.errors import BadRequest
from broker.policy.errors import LabelsRefused, NameRefused, PolicyRefused, SubjectRefused
from broker.policy.labels import parse_labels
from broker.policy.names import (
    Subject,
    SubjectKind,
    group_subject,
    is_token_name,
    parse_admin_name,
    parse_group_name,
    parse_keyring_name,
    parse_subject,
    parse_token_name,
    parse_worker_name,
    worker_subject,
)

UNHURRIED = settings(deadline=None)
"""A busy machine is no failure."""
SEGMENT = st.from_regex(r"[a-z0-9][a-z0-9._-]{0,62}", fullmatch=True)
ONE_SEGMENT = (parse_worker_name, parse_group_name, parse_admin_name, parse_keyring_name)
NOT_A_SEGMENT = ("", "A", "-a", ".a", "_a", "a b", "a\n", "a:b", "é", "a*", "x" * 64, "٣", "a\x00", "\ud800")


@UNHURRIED
@given(st.lists(SEGMENT, min_size=1, max_size=8).map("/".join))
def test_a_token_name_of_one_to_eight_segments_is_accepted_unchanged(text: str) -> None:
    """Every name inside the bounds is accepted as it is."""
    assert parse_token_name(text) == text


@pytest.mark.parametrize("segment", NOT_A_SEGMENT)
@pytest.mark.parametrize("place", ["{}", "a/{}", "{}/a", "a/{}/b"])
def test_a_token_name_with_one_bad_segment_is_refused(segment: str, place: str) -> None:
    """One bad segment anywhere refuses the whole name."""
    with pytest.raises(NameRefused, match="segment"):
        parse_token_name(place.format(segment))


def test_a_token_name_ends_at_eight_segments_of_63_characters() -> None:
    """The longest name is accepted; one segment or one character more is refused."""
    longest = "/".join(["x" * 63] * 8)
    assert parse_token_name(longest) == longest
    with pytest.raises(NameRefused, match="has 9 segments, at most 8"):
        parse_token_name("/".join("x" * 9))
    with pytest.raises(NameRefused):
        parse_token_name(f"{longest}x")


@UNHURRIED
@given(st.text(max_size=20))
def test_is_token_name_agrees_with_the_parser(text: str) -> None:
    """The fast check and the explaining parser accept the same texts."""
    try:
        parse_token_name(text)
    except NameRefused:
        assert not is_token_name(text)
    else:
        assert is_token_name(text)


@pytest.mark.parametrize("parse", ONE_SEGMENT)
def test_other_names_are_one_segment(parse: type) -> None:
    """Workers, groups, admins and keyrings are named by one segment, up to 63 characters."""
    assert parse("x" * 63) == "x" * 63
    for text in (*NOT_A_SEGMENT, "a/b"):
        with pytest.raises(NameRefused):
            parse(text)


@UNHURRIED
@given(SEGMENT, st.sampled_from(SubjectKind))
def test_a_subject_reads_back_as_it_was_written(name: str, kind: SubjectKind) -> None:
    """Parsing the text of a subject gives the same subject."""
    subject = Subject(kind=kind, name=name)
    assert parse_subject(str(subject)) == subject


def test_subject_texts_are_what_grant_records_hold() -> None:
    """Looking up a worker or group uses the same text as a parsed subject."""
    assert worker_subject("ci-1") == str(parse_subject("worker:ci-1"))
    assert group_subject("ci") == str(parse_subject("group:ci"))


@pytest.mark.parametrize(
    "text", ["", "ci", "worker:", ":ci", "admin:ci", "Worker:ci", "worker:CI", "worker:a:b", "group:a/b"]
)
def test_a_subject_of_another_form_is_refused(text: str) -> None:
    """Only worker:NAME and group:NAME are subjects."""
    with pytest.raises(SubjectRefused, match="worker:NAME or group:NAME"):
        parse_subject(text)


def test_a_refusal_names_the_thing_the_limit_and_the_remedy() -> None:
    """Each fact is an attribute, and all of them are in the message."""
    with pytest.raises(NameRefused) as caught:
        parse_worker_name("CI")
    refused = caught.value
    assert (refused.thing, refused.remedy) == ("worker name 'CI'", "choose a name like ci-1")
    assert refused.message == f"{refused.thing}: {refused.limit}; {refused.remedy}"


def test_a_refusal_never_repeats_raw_or_endless_text() -> None:
    """Control characters are escaped and long input is cut, so that a message is safe to print and to log."""
    with pytest.raises(NameRefused) as caught:
        parse_token_name("\x1b[2J" + "x" * 1_000_000)
    assert "\x1b" not in str(caught.value)
    assert len(str(caught.value)) < 400


def test_every_refusal_is_a_bad_request() -> None:
    """Edges answer any refused input as a bad request, without knowing the policy's tree."""
    assert issubclass(PolicyRefused, BadRequest)
    assert PolicyRefused.code == "bad_request"


def test_labels_inside_the_bounds_are_accepted() -> None:
    """32 labels with the longest key and value are accepted, and so is an empty value."""
    labels = {f"k{n}": "" for n in range(30)} | {"x" * 63: "v" * 256, "example.com/owner": "Zoë Ω"}
    assert parse_labels(labels) == labels


@pytest.mark.parametrize(
    "labels",
    [
        {f"k{n}": "" for n in range(33)},
        {"": "v"},
        {"x" * 64: "v"},
        {"Team": "v"},
        {"/a": "v"},
        {"a\n": "v"},
        {"a": "v" * 257},
        {"a": "two\nlines"},
        {"a": "\ud800"},
        {"a": "\u202e"},
    ],
)
def test_labels_outside_the_bounds_are_refused(labels: dict[str, str]) -> None:
    """Too many labels, a bad key, or a value that is too long or not printable is refused."""
    with pytest.raises(LabelsRefused):
        parse_labels(labels)


def test_a_refused_label_value_is_not_repeated() -> None:
    """A secret pasted into a label does not appear in the message."""
    with pytest.raises(LabelsRefused, match="value of label note") as caught:
        parse_labels({"note": "canary-7f3a\n"})
    assert "canary" not in str(caught.value)
