"""Names are compared by their words, and the assignment is optimal over all columns at once."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gates.contract.contract import contract
from gates.doctor.matching.assignment import NONE, assign
from gates.doctor.matching.limit_keys import CONTRACT_FORM, expressions, form_of
from gates.doctor.matching.states import match_values
from gates.doctor.words import Likenesses, best_likeness, likeness, synonyms, words

SCORES = st.lists(st.lists(st.floats(0, 1), min_size=3, max_size=3), max_size=4)


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("tenantIDs", ("tenant", "id")),
        ("TenantIds", ("tenant", "id")),
        ("dead_letter-queue", ("dead", "letter", "queue")),
        ("DLQItems", ("dead", "letter", "queue", "item")),
        ("tries", ("try",)),
        ("account_ref", words("AccountReference")),
        ("status", ("status",)),
        ("outbox_deadletter", words("outbox_dead_letter")),
        ("deadletterqueue", words("DeadLetterQueue")),
        ("featureflags", words("feature_flags")),
        ("catalog", ("catalog",)),
        ("clé", ("cle",)),
        ("", ()),
        ("\u202e\x00'\"", ()),
    ],
)
def test_a_name_is_taken_apart_in_any_convention(name: str, found: tuple[str, ...]) -> None:
    """Snake case, camel case, capitals and plurals give the same words."""
    assert words(name) == found


@pytest.mark.parametrize(
    ("kind", "name", "better", "worse"),
    [
        ("tables", "dead_letter_queue", "failed_jobs", "jobs"),
        ("tables", "companies", "workspaces", "workshops"),
        ("columns", "retry_after", "next_retry_at", "created_at"),
        ("columns", "retry_count", "attempts", "amount"),
        ("columns", "aggregate_key", "grp_key", "api_key"),
    ],
)
def test_what_people_call_a_thing_is_more_alike_than_another(kind: str, name: str, better: str, worse: str) -> None:
    """Synonyms, typing errors and abbreviations are closer than a word in common by chance."""
    spelled = synonyms().spellings(kind, name)
    assert best_likeness(spelled, words(better)) > best_likeness(spelled, words(worse))


@given(st.text(max_size=200), st.text(max_size=200))
def test_a_likeness_is_a_number_from_0_to_1_for_any_name(one: str, other: str) -> None:
    """Equal names are 1, and no name is an error."""
    assert 0 <= likeness(words(one), words(other)) <= 1
    assert likeness(words(one), words(one)) == 1


@given(st.sampled_from(["attempts", "tenantId", "x", "created_at", "nxt", "org"]))
def test_looking_up_is_as_good_as_comparing_with_every_spelling(name: str) -> None:
    """The index finds every spelling that shares a telling word with the name."""
    columns = [(c, r.name) for r in contract().relations.values() for c in r.columns]
    found = Likenesses("columns", columns).of(words(name))
    for column, table in columns:
        whole = best_likeness(synonyms().spellings("columns", column, table), words(name))
        assert found.get((column, table), 0.0) == pytest.approx(whole) or whole < 0.5


@given(SCORES, st.floats(0, 0.9))
def test_the_assignment_is_the_best_there_is(scores: list[list[float]], least: float) -> None:
    """No assignment is worth more, no column is used twice, and low values are not assigned."""
    found = assign(scores, least)

    def worth(places: tuple[int, ...]) -> float:
        return sum(scores[i][p] - least for i, p in enumerate(places) if p != NONE)

    used = [p for p in found if p != NONE]
    assert len(used) == len(set(used))
    assert all(scores[i][p] > least for i, p in enumerate(found) if p != NONE)
    possible = itertools.product(range(NONE, 3), repeat=len(scores))
    best = max(
        worth(p)
        for p in possible
        if len({x for x in p if x != NONE}) == sum(x != NONE for x in p)
        and all(scores[i][x] > least for i, x in enumerate(p) if x != NONE)
    )
    assert worth(tuple(found)) == pytest.approx(best)


def test_values_are_told_by_what_they_do_not_share() -> None:
    """`redrive.begin` and `redrive.finish` differ in their second word; `login` is neither."""
    actions = contract().relations["audit_logs"].values["action"]
    real = ("redrive.begin", "redrive.finish", "redrive.halt", "redrive.denied", "login")
    assert match_values(actions, real, synonyms()) == {
        "dlq_replay_started": "redrive.begin",
        "dlq_replay_completed": "redrive.finish",
        "dlq_replay_stopped": "redrive.halt",
        "dlq_replay_refused": "redrive.denied",
    }


@pytest.mark.parametrize(
    ("key", "form"),
    [
        ("replay:6f1c:192.0.2.1", CONTRACT_FORM),
        ("redrive:acc_7:2001:db8::1", ("redrive:", ":")),
        ("v2/limits|7|192.0.2.1", ("v2/limits|", "|")),
        ("7|192.0.2.1", ("", "|")),
        ("no address", None),
        ("", None),
    ],
)
def test_the_form_of_a_limits_key_is_read_off_a_row(key: str, form: tuple[str, str] | None) -> None:
    """The form has the key's prefix, and the text before the address at its end."""
    assert form_of(key) == form


def test_a_limits_key_is_read_and_written_by_its_form() -> None:
    """Both directions are SQL; a quote in the prefix is escaped."""
    assert expressions(("o'k|", "|"), "b") == (
        "'replay:' || regexp_replace(substr(b, 5), '[|]', ':')",
        "'o''k|' || regexp_replace(substr({}, 8), ':', '|')",
    )
