"""A node that will be taken away (a spot notice): stop its tasks between two steps, and go on with them elsewhere.

Snapshots and outputs stay readable there until the machine is gone. What nobody has fetched by then is computed again.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from disagctl.engine import Engine


def evacuate(engine: "Engine", node: str, why: str) -> None:
    """Nothing new goes there; its workers drain, and what can be paused is. Repeating it is harmless."""
    roster, ledger = engine.roster, engine.ledger
    if node not in roster.nodes or node in roster.leaving:
        return
    roster.leaving.add(node)
    paused = sum(ledger.pause_all(worker.id) for worker in roster.workers.values() if worker.node == node)
    engine.desk.event("notice", f"{node} will be taken away ({why}): {paused} tasks are to go on elsewhere")
    engine.rewish()
