"""One run from its seed: organisations are set up and live on while workers die; then all comes to its end."""

from __future__ import annotations

from random import Random

from tests.simulation.price_list import MINUTE_US
from tests.simulation.traffic import DAY_US, REUSED_AFTER_US, Traffic
from tests.simulation.world import HOUR_US, MILLISECOND_US, SECOND_US, World

RECORDS = 130
AFTER_THE_LAST_HOLD_US = 25 * HOUR_US
"""A hold ends by itself after 24 hours."""
LEAPS_US = (0,) * 30 + (SECOND_US,) * 16 + (61 * SECOND_US,) * 8 + (HOUR_US, 7 * HOUR_US, 30 * HOUR_US, 9 * DAY_US)


def run(seed: int) -> World:
    """The world after its last day. Raises what went wrong on the way."""
    world = World(seed)
    world.run(_drive)
    return world


async def _drive(world: World) -> None:
    random = Random(f"script {world.seed}")
    traffic = Traffic(Random(f"traffic {world.seed}"), world.kafka)
    for record in traffic.beginning():
        world.send(record)
    await world.settle()
    world.faults.active = True
    for number in range(RECORDS):
        record = traffic.next()
        world.send(record)
        await _wait(world, random)
        if number == RECORDS // 3:
            await _resolve_late(world, traffic)
        if number == RECORDS // 2 and world.seed % 3 == 0:
            await _after_a_window(world, traffic)
    await _end(world)


async def _wait(world: World, random: Random) -> None:
    """A while passes, for the broker, for the workers, or for both; a partition may change hands."""
    world.pass_time(random.choice(LEAPS_US) + random.randrange(SECOND_US // 10))
    await world.sleep(random.choice((0, 0, 0.005, 0.02, 0.1, 0.1, 2.5)) if random.randrange(40) else 20)
    if world.faults.per_mille and not random.randrange(25):
        await world.give(random.randrange(len(world.kafka.epochs)))
    if world.faults.per_mille and not random.randrange(60) and world.workers:
        await world.crash(random.choice(world.workers))


async def _resolve_late(world: World, traffic: Traffic) -> None:
    """Holds are resolved just before they end, and what comes after the end may be read first: in the same org, which
    ends the hold, or in another one of the partition, which moves the clock."""
    held = [(org, f"late {number} of {org}") for org in traffic.holds for number in range(4)]
    for org, name in held:
        world.send(traffic.short_hold(org, name))
    await world.sleep(5)
    world.pass_time(MINUTE_US - SECOND_US)
    for number, (org, name) in enumerate(held):
        world.send(traffic.resolve(org, name, by_usage=number % 2 == 1))
    world.pass_time(2 * SECOND_US)
    for number, org in enumerate(traffic.holds):
        world.send(traffic.plain(org, by_purchase=number % 2 == 1))


async def _after_a_window(world: World, traffic: Traffic) -> None:
    """Ids are used again when all partitions have forgotten them: each has committed something since."""
    world.faults.active = False
    await world.settle()
    world.pass_time(REUSED_AFTER_US)
    for _ in range(3):  # the first commit forgets, the second says so, the third is for a leg that came between
        for org in traffic.holds:
            record = traffic._use(org)
            world.send(record)
        await world.settle()
    world.faults.active = True
    for org in traffic.holds:
        for name in traffic.long_ago(org):
            world.used_again.add(name)
            world.pass_time(MILLISECOND_US)  # grants of one instant go by their ids, which are the ledger's affair then
            record = traffic.buy_again(org, name)
            world.send(record)


async def _end(world: World) -> None:
    """No more faults, no more records, and time for whatever is still open."""
    world.faults.active = False
    await world.settle()
    world.pass_time(AFTER_THE_LAST_HOLD_US)
    await world.settle()
