"""The head's machines against a cloud that lags, lies, runs out and dies, and a head that is killed between any two steps."""

import asyncio
from pathlib import Path

import msgspec
import pytest

from disagctl.store.rows import NodeRow
from planner.run.fleet import NodeWish
from tests.nodes.cloud import H100, H100_WEST, L4, SMALL, WISH, Cloud, Dead, Head


def run(coroutine) -> None:
    asyncio.run(coroutine)


def test_what_is_wished_for_comes_up_and_what_is_not_goes(cloud: Cloud, tmp_path: Path) -> None:
    async def play() -> None:
        head = Head(cloud, tmp_path / "db", (WISH, SMALL))
        await head.turns(10)
        assert sorted(m.offer.accelerator for m in cloud.machines.values()) == ["H100", "L4", "L4"]
        assert {row.state for row in head.nodes.open} == {"up"}
        assert head.nodes.book.usd_per_hour() == pytest.approx(6.0)
        await head.nodes.wish([msgspec.structs.replace(SMALL, count=1)], "less to do")
        await head.turns(30)
        assert [m.offer.accelerator for m in cloud.machines.values()] == ["L4"]
        assert len(head.nodes.open) == 1
        assert await head.nodes.end() == []
        assert cloud.machines == {}
        head.close()

    run(play())


def test_a_machine_that_may_be_spot_listens_for_its_notice(cloud: Cloud, tmp_path: Path) -> None:
    async def play() -> None:
        spot = msgspec.structs.replace(H100, spot=True)
        head = Head(cloud, tmp_path / "db", (SMALL, NodeWish("may", (H100, spot), 1)))
        await head.turns(10)
        assert {m.offer.accelerator: m.boot.spot for m in cloud.machines.values()} == {"L4": False, "H100": True}
        assert await head.nodes.end() == []
        head.close()

    run(play())


def test_wishes_survive_the_head_until_there_is_another_plan(cloud: Cloud, tmp_path: Path) -> None:
    async def play() -> None:
        head = Head(cloud, tmp_path / "db", (WISH,), plan="one")
        await head.nodes.wish([SMALL], "the load changed")
        head.close()
        head = Head(cloud, tmp_path / "db", (WISH,), plan="one")
        assert head.nodes.wishes == (SMALL,)
        head.close()
        head = Head(cloud, tmp_path / "db", (WISH,), plan="two")
        assert head.nodes.wishes == (WISH,)
        head.close()

    run(play())


def test_a_lost_machine_is_replaced_at_once_and_its_row_closed(cloud: Cloud, tmp_path: Path) -> None:
    async def play() -> None:
        head = Head(cloud, tmp_path / "db", (WISH,))
        await head.turns(200)
        cloud.lose("n1")
        await head.turns(3)
        assert [m.node for m in cloud.machines.values()] == ["n2"]
        await head.turns(10)
        assert [row.id for row in head.nodes.open] == ["n2"]
        assert "n1: its provider has it no more; its work goes to others" in head.said("node_lost")
        head.close()

    run(play())


def test_an_agent_that_falls_silent_on_a_machine_that_lives_is_replaced(cloud: Cloud, tmp_path: Path) -> None:
    async def play() -> None:
        head = Head(cloud, tmp_path / "db", (WISH,))
        await head.turns(20)
        (machine,) = cloud.machines.values()
        machine.up_s = cloud.now + 1e9  # it says no more
        await head.turns(70)
        assert list(cloud.machines.values()) == [machine]  # a partition of a minute is no loss
        await head.turns(20)
        assert [m.node for m in cloud.machines.values()] == ["n2"]
        head.close()

    run(play())


def test_no_capacity_falls_back_and_says_so(cloud: Cloud, tmp_path: Path) -> None:
    async def play() -> None:
        cloud.empty = {str(H100)}
        head = Head(cloud, tmp_path / "db", (WISH,))
        await head.turns(10)
        (row,) = head.nodes.open
        assert (row.offer, row.usd_per_hour, row.reserved) == (str(H100_WEST), 5.0, 5.0)
        assert str(H100_WEST) in head.said("fall_back")[0]
        head.close()

    run(play())


def test_no_capacity_anywhere_is_tried_again_ever_more_seldom(cloud: Cloud, tmp_path: Path) -> None:
    async def play() -> None:
        cloud.empty = {str(H100), str(H100_WEST)}
        head = Head(cloud, tmp_path / "db", (WISH,))
        await head.turns(600, 10.0)
        assert len(head.said("launch_failed")) < 12
        trouble = head.nodes.failures[WISH.key]
        assert trouble.kind == "no_capacity"
        assert trouble.given_up
        assert head.nodes.open == []
        cloud.empty = set()
        await head.nodes.wish([WISH], "try again")
        await head.turns(10)
        assert len(cloud.machines) == 1
        assert head.nodes.failures == {}
        head.close()

    run(play())


def test_the_budget_is_a_wall_for_the_dearest_offer_and_replacements_wait_behind_it(
    cloud: Cloud, tmp_path: Path
) -> None:
    async def play() -> None:
        head = Head(cloud, tmp_path / "db", (msgspec.structs.replace(WISH, count=2),), max_usd_per_hour=9.5)
        await head.turns(4)  # 4 + 4 would fit, but either might become 5
        assert len(cloud.machines) == 1
        assert head.nodes.failures[WISH.key].kind == "over_budget"
        await head.turns(60)  # the first one is known to cost 4: there is room for one that may cost 5
        assert len(cloud.machines) == 2
        assert sum(row.reserved for row in head.nodes.open) <= 9.5
        head.close()

    run(play())


def test_the_machine_of_the_head_itself_takes_its_part_of_the_budget(cloud: Cloud, tmp_path: Path) -> None:
    async def play() -> None:
        own = NodeRow("head", "sky", "small", 1.0, "", None, "up", 0.0, reserved=1.0, billed_from=0.0)
        head = Head(cloud, tmp_path / "db", (WISH,), max_usd_per_hour=5.5, head=own)
        await head.turns(4)
        assert head.nodes.failures[WISH.key].kind == "over_budget", "5 for the dearest offer, 1 for the head"
        assert head.nodes.book.usd_per_hour() == 1.0
        head.close()
        head = Head(cloud, tmp_path / "db", (WISH,), max_usd_per_hour=6.0, head=own)
        await head.turns(20)
        assert len(cloud.machines) == 1
        assert head.nodes.book.usd_per_hour() == 5.0
        head.close()

    run(play())


def test_when_all_the_money_is_spent_everything_is_given_back(cloud: Cloud, tmp_path: Path) -> None:
    async def play() -> None:
        head = Head(cloud, tmp_path / "db", (WISH,), max_usd_total=1.0)
        await head.turns(90, 10.0)
        assert len(cloud.machines) == 1
        await head.turns(60, 10.0)
        assert cloud.machines == {}
        assert head.said("budget_spent")
        assert head.nodes.book.usd_total(cloud.now) < 1.2
        head.close()

    run(play())


def test_a_create_that_errors_though_the_machine_exists_leaves_none_behind(cloud: Cloud, tmp_path: Path) -> None:
    async def play() -> None:
        cloud.create_errors = 1
        head = Head(cloud, tmp_path / "db", (WISH,))
        await head.turns(60)
        assert [m.node for m in cloud.machines.values()] == ["n2"]
        assert [row.id for row in head.nodes.open] == ["n2"]
        head.close()

    run(play())


def test_a_launch_that_was_accepted_and_failed_leaves_no_row_open(cloud: Cloud, tmp_path: Path) -> None:
    async def play() -> None:
        cloud.fails_late = True
        head = Head(cloud, tmp_path / "db", (WISH,))
        await head.turns(10)
        trouble = head.nodes.failures[WISH.key]
        assert (trouble.kind, trouble.tried) == ("no_capacity", ["east: none"])
        assert head.nodes.open == []
        cloud.fails_late = False
        await head.turns(30)
        assert len(cloud.machines) == 1
        assert head.nodes.book.usd_total(cloud.now) < 0.1
        head.close()

    run(play())


def test_a_terminate_that_lies_is_asked_again(cloud: Cloud, tmp_path: Path) -> None:
    async def play() -> None:
        cloud.lies = 3
        head = Head(cloud, tmp_path / "db", (NodeWish("l4", (L4,), 1),))
        await head.turns(10)
        await head.nodes.wish([], "no more")
        await head.turns(10)
        assert len(cloud.machines) == 1
        assert head.nodes.open
        await head.turns(120)
        assert cloud.machines == {}
        assert head.nodes.open == []
        head.close()

    run(play())


def test_a_list_that_lags_a_minute_neither_doubles_nor_drops_a_machine(cloud: Cloud, tmp_path: Path) -> None:
    async def play() -> None:
        cloud.lag_s = 60.0
        head = Head(cloud, tmp_path / "db", (WISH, SMALL))
        await head.turns(150)
        assert len(cloud.launches) == 3
        assert len(cloud.machines) == 3
        assert {row.state for row in head.nodes.open} == {"up"}
        head.close()

    run(play())


def test_strangers_with_our_tag_are_ended_and_a_cloud_that_does_not_answer_ends_nothing(
    cloud: Cloud, tmp_path: Path
) -> None:
    async def play() -> None:
        head = Head(cloud, tmp_path / "db", (WISH,))
        await head.turns(10)
        (mine,) = cloud.machines.values()
        cloud.machines["feed"] = msgspec.structs.replace(mine, intent="feed", node="n9")
        cloud.unreachable = True
        await head.turns(5)
        assert len(cloud.machines) == 2
        cloud.unreachable = False
        await head.turns(3)
        assert list(cloud.machines.values()) == [mine]
        assert head.said("orphan")
        head.close()

    run(play())


def test_the_end_names_what_will_not_go(cloud: Cloud, tmp_path: Path) -> None:
    async def play() -> None:
        head = Head(cloud, tmp_path / "db", (WISH,))
        await head.turns(10)
        cloud.unreachable = True
        (survivor,) = await head.nodes.end()
        assert survivor.startswith(f"n1 ({H100}, $4.00/h)")
        head.close()

    run(play())


@pytest.mark.parametrize("lag_s", [0.0, 60.0])
def test_a_head_killed_at_any_step_launches_nothing_twice_and_leaves_no_orphan(
    cloud: Cloud, tmp_path: Path, lag_s: float
) -> None:
    async def life(die_at: int) -> bool:
        """Whether it died."""
        cloud.machines, cloud.launches, cloud.lag_s = {}, [], lag_s
        path = tmp_path / f"db-{die_at}"
        head = Head(cloud, path, (WISH, SMALL), die_at)
        died = False
        try:
            await head.turns(7)
            await head.nodes.wish([msgspec.structs.replace(SMALL, count=1)], "less")
            await head.turns(7)
        except Dead:
            died = True
            await asyncio.gather(*head.nodes._tasks.values(), return_exceptions=True)
            head.close()
            head = Head(cloud, path, (WISH, SMALL))
            await head.nodes.wish([msgspec.structs.replace(SMALL, count=1)], "less")
        head.die_at = None
        await head.turns(24, 12.0)
        rows = {row.intent for row in head.nodes.open}
        assert {m.intent for m in cloud.machines.values()} == rows, f"died at {die_at}"
        assert [m.offer.accelerator for m in cloud.machines.values()] == ["L4"], f"died at {die_at}"
        assert len(cloud.launches) == len(set(cloud.launches))
        assert await head.nodes.end() == []
        assert cloud.machines == {}
        head.close()
        return died

    async def sweep() -> None:
        die_at = 1
        while await life(die_at):
            die_at += 1
        assert die_at > 20

    run(sweep())
