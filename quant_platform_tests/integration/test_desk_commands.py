"""`qp ingest-desk`: what was taken by date, what was quarantined and why, and what was refused."""

import json
from pathlib import Path

HEAD = "fill_id,order_id,ts_event,symbol,side,price,quantity,note"


def fill(ident: str, *, at: str = "2024-03-04T12:00:00Z", price: str = "100") -> str:
    return f"{ident},o1,{at},AAA,buy,{price},2,x"


def test_files_are_taken_and_the_table_says_what_was_in_them(qp, tmp_path: Path) -> None:
    path = tmp_path / "fills.csv"
    path.write_text("\n".join([HEAD, fill("f1"), fill("f2", price="-5"), fill("f3", at="2024-03-05T12:00:00"), ""]))
    empty = tmp_path / "orders.csv"
    empty.write_text("order_id,ts_event,symbol,side,quantity,status\n")
    said = qp("ingest-desk", str(path), str(empty), "--json")
    assert said.code == 0
    first, notes, nothing = json.loads(said.out)
    assert (first["file"], first["status"], first["kind"]) == (str(path), "taken", "fills")
    assert (first["date"], first["symbols"], first["rows"], first["quarantined"]) == ("2024-03-04", "AAA", 1, 1)
    assert (notes["date"], notes["rows"], notes["quarantined"]) == ("", 0, 1)
    assert "price|min_exclusive (1 rows): it is zero or negative" in notes["why"]
    assert "ts_event|no_time_zone (1 rows): its time does not tell a zone" in notes["why"]
    assert "columns that the contract does not have: note" in notes["why"]
    assert (nothing["kind"], nothing["why"]) == ("orders", "it has no rows")
    again = qp("ingest-desk", str(path))
    assert again.code == 0
    assert "known" in again.out


def test_a_refused_file_does_not_stop_the_others_and_is_told(qp, tmp_path: Path) -> None:
    bad, good, cut = tmp_path / "bad.csv", tmp_path / "good.csv", tmp_path / "cut.csv"
    bad.write_text("a,b\n1,2\n")
    good.write_text("\n".join([HEAD, fill("f1"), ""]))
    cut.write_text("\n".join([HEAD, fill("f1")]))
    said = qp("ingest-desk", str(bad), str(good), str(cut), "--json")
    assert said.code == 1
    rows = json.loads(said.out)
    assert [row["status"] for row in rows] == ["refused", "taken", "taken", "refused"]
    assert "none of the columns decision_id, order_id, fill_id" in rows[0]["why"]
    assert "has no line break" in rows[3]["why"]


def test_a_kind_may_be_named_and_must_be_one(qp, tmp_path: Path) -> None:
    path = tmp_path / "fills.csv"
    path.write_text("\n".join([HEAD, fill("f1"), ""]))
    assert qp("ingest-desk", str(path), "--kind", "fills").code == 0
    for arguments in (("--kind", "trades"), ("--kind", "fills", "--mapping", "x")):
        said = qp("ingest-desk", str(path), *arguments)
        assert said.code == 2
        assert "must be one of decisions, orders, fills" in said.text
    unknown = qp("ingest-desk", str(path), "--mapping", "broker")
    assert unknown.code == 1
    assert "There is no mapping 'broker'" in unknown.text
