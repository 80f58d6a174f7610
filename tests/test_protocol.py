import dataclasses

import pytest

from saeutils.protocol import (
    CORRECTED,
    ENTRIES,
    RELEASED,
    decision_rules,
    entries_table,
    find_entry,
    parse_protocol,
)


def test_there_are_32_entries_in_order_with_unique_names():
    assert [entry.id for entry in ENTRIES] == [f"A{i:02d}" for i in range(1, 33)]
    assert len({entry.name for entry in ENTRIES}) == 32
    assert all(getattr(e, f.name) for e in ENTRIES for f in dataclasses.fields(e))
    assert list(entries_table()["id"]) == [entry.id for entry in ENTRIES]
    assert {entry.stage for entry in ENTRIES} <= {"01", "02", "03", "04", "05"}


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry.id)
def test_flipping_twice_returns_and_the_name_reads_back(entry):
    for base in (RELEASED, CORRECTED):
        turned = base.flip(entry.id)
        assert turned.corrects(entry.name) != base.corrects(entry.name)
        assert turned.flip(entry.name) == base
        assert parse_protocol(turned.name) == turned


def test_parse_by_hand():
    protocol = parse_protocol("corrected-A19")
    assert not protocol.corrects("A19") and protocol.corrects("A18")
    assert parse_protocol("released+A03+insample_r2").name == "released+A01+A03"
    assert parse_protocol("released") is not None and parse_protocol("released") == RELEASED


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("released-A19", "takes"),
        ("corrected+A19", "takes"),
        ("published", "unknown protocol"),
        ("", "unknown protocol"),
        ("released+A33", "A01 to A32"),
        ("released+A19+no_centring", "twice"),
    ],
)
def test_parse_refuses(text, message):
    with pytest.raises(ValueError, match=message):
        parse_protocol(text)


def test_protocols_are_frozen_and_rules_are_typed():
    with pytest.raises(dataclasses.FrozenInstanceError):
        RELEASED.name = "other"
    rules = decision_rules().set_index("rule")["value"]
    assert rules["margin"] == 0.03 and rules["primary sparsity"] == 95
    assert find_entry("A05").name == "d_average"
    floor = decision_rules().set_index("rule")["meaning"]["R2 floor"]
    assert "at least one representation" in floor and "First worded: in both" in floor
