"""The dead letter queue: the states of an item on its way through a replay."""

from drills.workbench.checks import DELIVERS, SQL
from drills.workbench.scene import Scene
from gates.checks.recorder import check


@check("drill/dlq/only-legal-transitions", needs=SQL, after=DELIVERS, covers=("L04",))
def test_only_legal_transitions(scene: Scene) -> None:
    """A replayed item is first pending, then replaying, then resolved, and the run's outbox row agrees at each moment.

    An item that is pending while its replay is on its way is replayed twice.
    """
    company = scene.company(items=7)
    scene.add_blocked(company)  # it is seen on its way however fast the others go
    seen: set[tuple[str, str]] = set()

    def probe() -> bool:
        rows = scene.rows(
            "select d.status, case when o.event_id is null then 'none' when o.processed_at is null then 'open'"
            " else 'processed' end as state from public.dead_letter_queue d left join public.event_outbox o"
            " on o.event_id = d.event_id and o.company_id = d.company_id where d.company_id = %s",
            company,
        )
        seen.update((str(r["status"]), str(r["state"])) for r in rows)
        return all(r["status"] == "resolved" for r in rows)

    scene.rows("update public.dead_letter_queue set event_id = gen_random_uuid() where company_id = %s", company)
    probe()
    scene.run(company, max=8)
    probe()
    scene.make_due(company)
    scene.until(probe, "eight resolved items", every_s=0)
    allowed = {("pending", "none"), ("replaying", "open"), ("resolved", "processed")}
    illegal = sorted(seen - allowed)
    scene.seen.details["seen"] = ", ".join(sorted(f"{a}/{b}" for a, b in seen))
    assert not illegal, f"an item was {illegal[0][0]!r} while its outbox row was {illegal[0][1]!r}"
    scene.seen.count(8)
