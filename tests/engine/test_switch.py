"""A worker that is to become something else, as the head goes about it."""

from planner.domain import TaskRef
from stages import protocol as wire
from tests.engine.bench import DECODE, DENOISE, ENCODE, Bench

STAGES = ("encode", "denoise", "decode")


def bench_of(encode: int = 1, denoise: int = 2, decode: int = 1) -> Bench:
    return Bench(wanted={ENCODE: encode, DENOISE: denoise, DECODE: decode})


def roles_given(bench: Bench, worker: str) -> list[str]:
    return [m.role.stage for m in bench.sent.pop(worker, []) if isinstance(m, wire.SetRole)]


def test_one_process_changes_and_none_is_started_or_ended() -> None:
    bench = bench_of()
    fleet = bench.fleet()
    slots = {plan.slot for plan in bench.roster.plans}
    bench.want(encode=1, denoise=1, decode=2)
    assert {wish.slot for wish in bench.wished()} == slots
    (switched,) = [w for w in bench.roster.workers.values() if w.phase == "switching"]
    assert switched.id in fleet[DENOISE]
    assert roles_given(bench, switched.id) == ["decode"]
    assert bench.ledger.takes(switched.id) is None, "nothing new until it is ready"
    bench.hear(switched.id, wire.RoleReady(DECODE, 2.0))
    assert bench.ledger.takes(switched.id) == DECODE
    assert bench.events.count("switch") == 1
    assert not bench.roster.draining


def test_the_idle_one_switches() -> None:
    bench = bench_of()
    fleet = bench.fleet()
    refs = [bench.submit(name, ("denoise", "decode")) for name in "a"]
    busy = bench.holder("a")
    assert all(refs)
    bench.want(encode=1, denoise=1, decode=2)
    (switched,) = [w.id for w in bench.roster.workers.values() if w.phase == "switching"]
    assert {busy, switched} == set(fleet[DENOISE])


def test_what_it_made_before_can_still_be_had() -> None:
    bench = bench_of(denoise=1)
    fleet = bench.fleet()
    (encoder,) = fleet[ENCODE]
    ref = bench.submit("a", STAGES)
    assert ref is not None
    bench.want(encode=2, denoise=0, decode=1)  # nobody takes it yet
    bench.hear(encoder, wire.Done(ref, 1.0, offer=wire.Offer(ref.key, b"", (), ())))
    bench.want(encode=0, denoise=2, decode=1)
    bench.hear(encoder, wire.RoleReady(DENOISE, 1.0))
    assert bench.ledger.requests["a"].outputs[0].worker == encoder
    assert bench.holder("a") == encoder, "and it is the one to go on with it"


def test_back_before_it_has_left_is_no_switch() -> None:
    bench = bench_of()
    bench.fleet()
    bench.want(encode=1, denoise=1, decode=2)
    (switched,) = [w.id for w in bench.roster.workers.values() if w.phase == "switching"]
    bench.want(encode=1, denoise=2, decode=1)
    assert roles_given(bench, switched) == ["decode", "denoise"]
    bench.hear(switched, wire.RoleReady(DENOISE, 1.0))
    assert bench.ledger.takes(switched) == DENOISE
    assert bench.events.count("worker_ready") == 4, "what it had, it need not load"


def test_a_new_head_takes_workers_as_they_are() -> None:
    bench = Bench(wanted={ENCODE: 1, DENOISE: 1, DECODE: 2})
    bench.engine.restart(2, ["n1"])
    bench.ledger.recover([], 0.0, 5.0)
    had = {"n1.gpu3.1": DECODE, "n1.gpu0.1": DENOISE, "n1.gpu1.1": DECODE, "n1.gpu2.1": ENCODE}
    vitals = tuple(wire.WorkerVitals(worker, worker[3:7], 1, "running") for worker in had)
    gpus = tuple(wire.GpuInfo(n, "H200", 1) for n in range(4))
    bench.hear("n1", wire.AgentHello(wire.PROTOCOL_VERSION, "n1", "h", 1, 8, 1, gpus, vitals))
    for worker, role in had.items():
        bench.hear(worker, wire.Hello(wire.PROTOCOL_VERSION, worker, "n1", 1, role, "ready"))
    bench.engine.tick()
    bench.engine.tick()
    assert {w.id: w.role for w in bench.roster.workers.values()} == had
    assert {w.id: w.gpu for w in bench.roster.workers.values()} == {w: int(w[6]) for w in had}
    assert "switch" not in bench.events
    assert [wish.gpu for wish in bench.wished()] == [0, 1, 2, 3]


def test_one_that_switched_while_nobody_looked_says_what_it_holds() -> None:
    bench = bench_of(denoise=1)
    fleet = bench.fleet()
    (denoiser,) = fleet[DENOISE]
    ref = bench.submit("a", ("denoise", "decode"))
    assert ref is not None
    offer = wire.Offer(ref.key, b"", (), ())
    bench.want(encode=1, denoise=0, decode=2)
    bench.ledger.worker_lost(denoiser, "not heard from")  # its leases ran out while it loaded
    bench.hear(denoiser, wire.RoleReady(DECODE, 1.0))
    assert bench.told(denoiser)[-1] == "Who"
    assert bench.ledger.takes(denoiser) is None
    held = (wire.HeldOutput(ref, offer),)
    bench.hear(denoiser, wire.Hello(wire.PROTOCOL_VERSION, denoiser, "n1", 1, DECODE, "ready", 1.0, (), held))
    assert bench.ledger.takes(denoiser) == DECODE
    assert bench.ledger.requests["a"].at == 1, "what it had made counts"


def test_two_that_swap_go_one_after_the_other_while_work_waits_for_both() -> None:
    bench = Bench(wanted={ENCODE: 1, DENOISE: 1})
    fleet = bench.fleet()
    (encoder,), (denoiser,) = fleet[ENCODE], fleet[DENOISE]
    for number in range(8):
        bench.submit(f"e{number}")
        bench.submit(f"d{number}", ("denoise",))
    swapped = {encoder: DENOISE, denoiser: ENCODE}
    bench.roster.role_of = lambda worker: swapped[worker.id]  # type: ignore[method-assign]

    def follow() -> list[str]:
        for worker in bench.roster.workers.values():
            bench.engine._follow_plan(worker, bench.now)
        return [w.id for w in bench.roster.workers.values() if w.phase == "switching"]

    assert follow() == [encoder]
    assert follow() == [encoder], "the other one waits for it"
    bench.hear(encoder, wire.RoleReady(DENOISE, 1.0))
    assert follow() == [denoiser]


def test_a_role_that_does_not_load_leaves_what_was_made_before() -> None:
    bench = bench_of(denoise=1)
    fleet = bench.fleet()
    (denoiser,) = fleet[DENOISE]
    ref = bench.submit("a", ("denoise", "decode"))
    assert ref is not None
    for name in fleet[DECODE]:
        bench.ledger.worker_draining(name)
    bench.hear(denoiser, wire.Done(ref, 1.0, offer=wire.Offer(ref.key, b"", (), ())))
    bench.want(encode=1, denoise=0, decode=2)
    bench.hear(denoiser, wire.RoleFailed(DECODE, "out of memory"))
    assert bench.ledger.requests["a"].outputs[0].ref == TaskRef("a", "denoise", ref.epoch)
    assert bench.roster.workers[denoiser].why == "out of memory"


def test_whoever_gets_several_gpus_is_not_wished_for_before_they_are_left() -> None:
    bench = Bench(wanted={ENCODE: 1, DENOISE: 2})
    gpus = tuple(wire.GpuInfo(n, "H200", 1) for n in range(3))
    bench.hear("n1", wire.AgentHello(wire.PROTOCOL_VERSION, "n1", "h", 1, 8, 1, gpus))
    slots = [wish.slot for wish in bench.wished()]
    assert slots == ["gpu0", "gpu1", "gpu2"]
    names = [f"n1.{slot}.1" for slot in slots]

    def beat(*workers: str) -> None:
        bench.hear("n1", wire.AgentBeat(1, tuple(wire.WorkerVitals(w, w[3:7], 1, "running") for w in workers)))

    beat(*names)
    for name in names:
        bench.hear(name, wire.Hello(wire.PROTOCOL_VERSION, name, "n1", 1))
        bench.hear(name, wire.RoleReady(bench.roster.workers[name].role or ENCODE, 1.0))
    assert {w.slot: w.role for w in bench.roster.workers.values()} == {"gpu0": ENCODE, "gpu1": DENOISE, "gpu2": DENOISE}
    refs = [bench.submit(name, ("denoise",)) for name in "ab"]
    assert all(refs)

    bench.roster.widths = {DENOISE: 2}
    bench.want(encode=1, denoise=1)
    assert [plan.slot for plan in bench.roster.plans] == ["gpu0", "gpu1_2"]
    assert sorted(bench.roster.draining) == names[1:]
    assert [wish.slot for wish in bench.wished()] == slots, "they compute"
    bench.hear("n1", wire.AgentBeat(1, (wire.WorkerVitals(names[1], "gpu1", 1, "exited", 0),)))
    assert [wish.slot for wish in bench.wished()] == ["gpu0", "gpu2"]
    bench.hear("n1", wire.AgentBeat(1, (wire.WorkerVitals(names[2], "gpu2", 1, "exited", 0),)))
    wide = bench.wished()[1]
    assert (wide.slot, wide.gpus) == ("gpu1_2", (1, 2))


def test_one_that_only_holds_results_does_not_keep_others_from_its_gpu_for_long() -> None:
    bench = Bench(wanted={ENCODE: 1})
    bench.hear("n1", wire.AgentHello(wire.PROTOCOL_VERSION, "n1", "h", 1, 8, 1, (wire.GpuInfo(0, "H200", 1),) * 1))
    worker = "n1.gpu0.1"
    vitals = (wire.WorkerVitals(worker, "gpu0", 1, "running"),)
    bench.hear("n1", wire.AgentBeat(1, vitals))
    bench.hear(worker, wire.Hello(wire.PROTOCOL_VERSION, worker, "n1", 1))
    bench.hear(worker, wire.RoleReady(ENCODE, 1.0))
    ref = bench.submit("a", STAGES)
    assert ref is not None
    bench.hear(worker, wire.Done(ref, 1.0, offer=wire.Offer(ref.key, b"", (), ())))
    both = (wire.GpuInfo(0, "H200", 1), wire.GpuInfo(1, "H200", 1))
    bench.hear("n1", wire.AgentHello(wire.PROTOCOL_VERSION, "n1", "h", 1, 8, 1, both, vitals))
    bench.roster.widths = {DENOISE: 2}
    bench.want(denoise=1)  # which should fetch it
    assert [wish.slot for wish in bench.wished()] == ["gpu0"]
    for _ in range(100):
        bench.now += 0.5
        bench.hear(worker, wire.Beat(1))
        bench.hear("n1", wire.AgentBeat(1, vitals))
        bench.engine.tick()
    assert bench.roster.workers[worker].doomed
    bench.hear("n1", wire.AgentBeat(1, (wire.WorkerVitals(worker, "gpu0", 1, "exited", -9),)))
    assert [wish.slot for wish in bench.wished()] == ["gpu0_1"]
    assert bench.ledger.requests["a"].at == 0, "it is made again"
