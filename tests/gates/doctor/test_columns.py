"""How the doctor matches columns: keys, types and neighbours weigh more than similar names."""

import pytest

from gates.contract.contract import contract
from gates.doctor.comparison.compare import NOT_SEEN, compare
from gates.doctor.defects import Defect, defects
from gates.doctor.matching.columns import ColumnMatch, Confidence
from gates.doctor.matching.tables import match
from gates.doctor.reading.schema import Schema, SchemaColumn, SchemaTable, UniqueKey
from gates.doctor.sqltypes import SPELLED

REPLAY_RUNS = contract().relations["replay_runs"].columns
KEY = "idempotency_key"


def runs(
    key: str = "Schlüssel",
    kind: str = "text",
    unique: tuple[tuple[str, ...], ...] = (),
    relkind: str = "r",
    **more: str,
) -> SchemaTable:
    """A table of runs with a renamed key, these further columns, and these unique keys."""
    columns = {(key if n == KEY else n): t for n, t in REPLAY_RUNS.items()} | more
    keys = [UniqueKey("p", ("id",), is_primary=True), *(UniqueKey(f"u{n}", k) for n, k in enumerate(unique))]
    made = {n: SchemaColumn(n, SPELLED.get(t, t), has_default=n == "id") for n, t in columns.items()}
    return SchemaTable("public", "replay_runs", relkind, made, tuple(keys), secured=True, forced=True)


def key_of(table: SchemaTable) -> ColumnMatch | None:
    """The column that is taken for the key of a run."""
    return match(Schema((table,)), contract())["replay_runs"].columns.get(KEY)


def told(table: SchemaTable) -> list[Defect]:
    schema = Schema((table,))
    found = compare(schema, contract())
    return [d for d in defects(schema, found, contract(), NOT_SEEN, None, "") if "unique" in d.seen]


@pytest.mark.parametrize("key", ["Schlüssel", "clé", "ключ", "k1"])
def test_a_unique_key_weighs_more_than_a_name_alike(key: str) -> None:
    """The column that is unique with the tenant is the key, in any language, and no defect."""
    one = key_of(runs(key, unique=((key, "company_id"),), request_id="text"))
    assert one is not None
    assert one.column.name == key
    assert one.confidence is Confidence.PERHAPS
    assert "unique with company_id" in one.reason
    assert told(runs(key, unique=((key, "company_id"),), request_id="text")) == []


@pytest.mark.parametrize("tenant", ["firma_id", "mandant", "t"])
def test_the_place_in_a_key_tells_where_the_tenant_is_called_otherwise_too(tenant: str) -> None:
    """One known column of a key identifies the other."""
    table = runs("dedupe_key", unique=(("dedupe_key", tenant),), **{tenant: "uuid"})
    columns = {n: c for n, c in table.columns.items() if n != "company_id"}
    made = SchemaTable("public", "replay_runs", "r", columns, table.keys)
    found = match(Schema((made,)), contract())["replay_runs"].columns
    assert (found[KEY].column.name, found["company_id"].column.name) == ("dedupe_key", tenant)
    assert found[KEY].confidence is Confidence.SURE


def test_a_name_alone_is_never_sure() -> None:
    """A common word is likely, with a key it is sure; the contract's own name is enough."""
    alone, keyed = key_of(runs("dedupe_key")), key_of(runs("dedupe_key", unique=(("dedupe_key", "company_id"),)))
    own = key_of(runs(KEY))
    assert [m.confidence for m in (alone, keyed, own) if m] == [Confidence.LIKELY, Confidence.SURE, Confidence.SURE]


def test_two_columns_with_as_much_evidence_are_both_said() -> None:
    """Neither is sure, and each is named as the other's alternative."""
    one = key_of(runs("a1", unique=(("a1", "company_id"), ("b2", "company_id")), b2="text"))
    assert one is not None
    assert one.confidence is Confidence.PERHAPS
    assert {one.column.name, *one.alternatives} == {"a1", "b2"}


def test_a_key_of_another_type_is_another_key() -> None:
    """A unique number is no request key; a key of the whole table weighs more than a partial one."""
    one = key_of(runs("request_key", unique=(("nummer", "company_id"),), nummer="integer"))
    assert one is not None
    assert (one.column.name, one.alternatives) == ("request_key", ())
    both = key_of(runs("k1", unique=(("k1", "company_id"), ("z9",)), z9="text"))
    assert both is not None
    assert (both.column.name, both.alternatives) == ("k1", ())


def test_the_key_of_a_partitioned_table_has_the_time_as_well() -> None:
    """The partition column is no candidate, and hides none."""
    unique = (("Schlüssel", "company_id", "requested_at"),)
    one = key_of(runs(unique=unique, relkind="p", request_id="text"))
    assert one is not None
    assert one.column.name == "Schlüssel"
    assert told(runs(unique=unique, relkind="p", request_id="text")) == []


def test_a_defect_that_stands_on_a_guess_says_so_and_ranks_behind_all_others() -> None:
    """It names the guess and how sure it is; certain defects come first."""
    table = runs("request_id")
    flags = SchemaTable(
        "public",
        "feature_flags",
        "r",
        {n: SchemaColumn(n, t) for n, t in contract().relations["feature_flags"].columns.items()},
        secured=True,
        forced=True,
    )
    schema = Schema((table, flags))
    found = defects(schema, compare(schema, contract()), contract(), NOT_SEEN, None, "")
    guessed = [d for d in found if d.guess]
    assert [(d.subject, d.guess) for d in guessed] == [
        ("public.replay_runs", "request_id is replay_runs.idempotency_key (likely)")
    ]
    assert found[-1] is guessed[0]
    assert "public.feature_flags" in {d.subject for d in found[:-1]}
    assert found[0].harm < guessed[0].harm
