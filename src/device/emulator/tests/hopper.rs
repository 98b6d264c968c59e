//! mbarriers, bulk copies, clusters and the register pool.

use super::*;

pub const IO: &str = ".param .u64 in, .param .u64 out";

/// Registers that the programs here use, and `s` the address of shared memory.
const REGS: &str = ".reg .b32 t, s, x, y, z, w, n; .reg .b64 p, q, o, st; .reg .pred p0, p1, p2;
    mov.u32 t, %tid.x; mov.u32 s, smem; mov.u32 x, 0; mov.u32 y, 0;
    ld.param.u64 p, [in]; ld.param.u64 q, [out]; setp.eq.u32 p0, t, 0;";

/// Waits for a parity at [s + at].
pub fn wait(at: u32, parity: u32) -> String {
    format!(
        "{{ .reg .pred d;
        $l: mbarrier.try_wait.parity.shared::cta.b64 d, [s+{at}], {parity};
        @d bra $o; bra $l; $o: }}"
    )
}

pub fn text(params: &str, body: &str) -> String {
    format!(
        ".version 8.3\n.target sm_90a\n.address_size 64\n\
         .extern .shared .align 1024 .b8 smem[];\n\
         .visible .entry k({params}) .maxntid 256 .minnctapersm 1\n{{\n{REGS}\n{body}\n}}\n"
    )
}

pub fn go(
    params: &str,
    body: &str,
    threads: u32,
    args: &[RawArg],
) -> Result<RawOutcome, Box<Trap>> {
    run_raw(&text(params, body), "k", [1; 3], [threads, 1, 1], 32768, args)
}

/// The output of `body` over 64 threads, with 256 words of input (0, 1, ..) and output.
pub fn words(body: &str) -> Vec<u32> {
    let out = go(IO, body, 64, &[RawArg::words(0..256), RawArg::InOut(1024)]);
    out.unwrap_or_else(|t| panic!("{body}: {t}")).words(0)
}

#[track_caller]
pub fn expect(body: &str, kind: FaultKind, said: &[&str]) {
    let t = match go(IO, body, 64, &[RawArg::words(0..256), RawArg::InOut(1024)]) {
        Ok(_) => panic!("no trap: {body}"),
        Err(t) => t,
    };
    let text = t.to_string();
    assert_eq!(t.kind, kind, "{text}");
    assert!(said.iter().all(|w| text.contains(w)), "{text}");
}

/// One mbarrier at [s] for `n` arrivals, ready for all.
pub fn init(n: u32) -> String {
    format!(
        "@p0 mbarrier.init.shared.b64 [s], {n}; fence.mbarrier_init.release.cluster; bar.sync 0;"
    )
}

/// A bulk load of `bytes` into [s+1024], by thread 0, completing on [s].
fn load(bytes: u32) -> String {
    format!(
        "@p0 cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [s+1024], [p], \
         {bytes}, [s];"
    )
}

/// Thread t stores word t of shared [s+1024].
pub const STORE_WORD: &str = "shl.b32 x, t, 2; add.u32 y, s, x; ld.shared.b32 y, [y+1024];
    cvt.u64.u32 o, x; add.u64 o, o, q; st.global.b32 [o], y;";

#[test]
fn a_bulk_load_lands_for_who_waits() {
    let w = words(&format!(
        "{} @p0 mbarrier.arrive.expect_tx.shared.b64 _, [s], 256; {} {} {STORE_WORD} ret;",
        init(1),
        load(256),
        wait(0, 0)
    ));
    assert_eq!(w[..64], (0..64).collect::<Vec<_>>()[..]);
}

#[test]
fn bytes_in_flight_are_not_to_be_touched() {
    let begin =
        format!("{} @p0 mbarrier.arrive.expect_tx.shared.b64 _, [s], 256; {}", init(1), load(256));
    // Unwaited, and waited for on another barrier.
    expect(&format!("{begin} bar.sync 0; {STORE_WORD}"), FaultKind::InFlight, &["reads it"]);
    expect(
        &format!(
            "{begin} @p0 mbarrier.init.shared.b64 [s+8], 64; fence.mbarrier_init.release.cluster; bar.sync 0;
             mbarrier.arrive.shared.b64 _, [s+8]; {} {STORE_WORD}",
            wait(8, 0)
        ),
        FaultKind::InFlight,
        &["reads it", "has not been waited for"],
    );
    expect(
        &format!("{begin} bar.sync 0; st.shared.b32 [s+1024], x;"),
        FaultKind::InFlight,
        &["writes it"],
    );
    expect(&format!("{begin} {}", load(16)), FaultKind::InFlight, &["cp.async.bulk"]);
    expect(&format!("{begin} ret;"), FaultKind::InFlight, &["the CTA ends"]);
}

#[test]
fn transaction_bytes_must_agree() {
    let with = |announced: u32| {
        format!(
            "{} @p0 mbarrier.arrive.expect_tx.shared.b64 _, [s], {announced}; {} {} ret;",
            init(1),
            load(256),
            wait(0, 0)
        )
    };
    use FaultKind::Transaction;
    expect(&with(512), Transaction, &["deadlock", "256 bytes missing", "shared address 0"]);
    expect(&with(128), Transaction, &["128 bytes more than expect_tx announced"]);
    let two = format!(
        "{} @p0 mbarrier.arrive.expect_tx.shared.b64 _, [s], 256; {}
         @p0 cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [s+2048], [p], 64, \
         [s]; {} ret;",
        init(1),
        load(256),
        wait(0, 0)
    );
    expect(&two, Transaction, &["64 bytes of copies that began in it are still to come"]);
    expect(
        &format!("{} mbarrier.expect_tx.relaxed.cta.shared.b64 [s], 0xfffff; ret;", init(1)),
        Transaction,
        &["counts to 1048575"],
    );
}

#[test]
fn arrivals_phases_and_states() {
    // Two phases; thread 0 learns the phase from its state, the others from the parity.
    let w = words(&format!(
        "{} mbarrier.arrive.shared.b64 st, [s]; {}
         mbarrier.arrive.release.cta.shared::cta.b64 st, [s], 1;
         mbarrier.pending_count.b64 n, st;
         $again: mbarrier.test_wait.shared.b64 p1, [s], st; @!p1 bra $again;
         @p0 mbarrier.inval.shared.b64 [s]; bar.sync 0;
         @p0 st.shared.b64 [s], st; bar.sync 0;
         setp.eq.u32 p2, t, 63; @p2 st.global.b32 [q], n; ret;",
        init(64),
        wait(0, 0)
    ));
    assert_eq!(w[0], 1);
    let dropped = words(&format!(
        "{} @p0 mbarrier.arrive_drop.shared.b64 _, [s]; @p0 bra $end;
         mbarrier.arrive.shared.b64 _, [s]; {} mbarrier.arrive.shared.b64 _, [s]; {}
         setp.eq.u32 p2, t, 63; @p2 st.global.b32 [q], t; $end: ret;",
        init(64),
        wait(0, 0),
        wait(0, 1)
    ));
    assert_eq!(dropped[0], 63);
    use FaultKind::{Arrivals, Mbarrier, Operand, PhaseReuse};
    expect(
        &format!("{} mbarrier.arrive.shared.b64 _, [s], 5;", init(64)),
        Arrivals,
        &["5 arrivals, but phase 0 awaits 4 more of 64"],
    );
    expect(
        &format!("{} mbarrier.arrive.noComplete.shared.b64 st, [s], 1;", init(64)),
        Arrivals,
        &[".noComplete"],
    );
    expect("mbarrier.arrive.shared.b64 _, [s];", Mbarrier, &["no mbarrier was initialised"]);
    expect(
        &format!(
            "{} @p0 mbarrier.init.shared.b64 [s], 1; fence.mbarrier_init.release.cluster;",
            init(1)
        ),
        Mbarrier,
        &["is live; mbarrier.inval"],
    );
    expect(
        &format!(
            "{} @p0 mbarrier.inval.shared.b64 [s]; @p0 mbarrier.arrive.shared.b64 _, [s];",
            init(1)
        ),
        Mbarrier,
        &["was invalidated"],
    );
    expect(
        &format!("{} @p0 mbarrier.inval.shared.b64 [s+4];", init(1)),
        FaultKind::Misaligned,
        &["no multiple of 8"],
    );
    for plain in ["ld.shared.b32 x, [s+4];", "st.shared.b64 [s], st;"] {
        expect(
            &format!("mov.b64 st, 0; {} {plain}", init(1)),
            Mbarrier,
            &["only mbarrier instructions may touch it"],
        );
    }
    expect(
        "@p0 mbarrier.init.shared.b64 [s], 0; fence.mbarrier_init.release.cluster;",
        Operand,
        &["0 arrivals"],
    );
    expect(
        &format!("{} mbarrier.try_wait.parity.shared.b64 p1, [s], 2;", init(1)),
        Operand,
        &["parity 2"],
    );
    // A state two phases old.
    expect(
        &format!(
            "{} @!p0 bra $e; mbarrier.arrive.shared.b64 st, [s]; mbarrier.arrive.shared.b64 _, [s];
             mbarrier.test_wait.shared.b64 p1, [s], st; $e: ret;",
            init(1)
        ),
        PhaseReuse,
        &["phase 0", "phase 2"],
    );
    // A waiter of another warp that sleeps through two phases.
    expect(
        &format!(
            "{} setp.lt.u32 p1, t, 32; @p1 bra $other; {} bar.arrive 1, 64; ret;
             $other: setp.eq.u32 p2, t, 0; @p2 mbarrier.arrive.shared.b64 _, [s];
             @p2 mbarrier.arrive.shared.b64 _, [s]; ret;",
            init(1),
            wait(0, 0)
        ),
        PhaseReuse,
        &["left behind"],
    );
}

#[test]
fn deadlocks_name_their_waiters() {
    expect(
        &format!(
            "{} @p0 mbarrier.arrive.shared.b64 _, [s]; setp.lt.u32 p1, t, 32; @p1 bra $low;
             bar.sync 1, 64; $low: {} bar.sync 1, 64; ret;",
            init(2),
            wait(0, 0)
        ),
        FaultKind::Deadlock,
        &[
            "warp 0 lanes ffffffff",
            "the mbarrier at shared address 0: phase 0 (parity 0), 1 of 2 arrivals missing",
            "warp 0 arrived last, at raw.ptx:10 (PTX line 10)",
            "they wait for each other: warp 0 waits at the mbarrier at shared address 0, raw.ptx:12",
            "perhaps for warp 1, which waits at barrier 1, raw.ptx:11",
            "began to wait at barrier 1",
            "warp 1 lanes ffffffff",
            "barrier 1, 32 of 64 threads",
        ],
    );
    // A missed phase: the waiter stands before phase 2 and wants phase 0.
    expect(
        &format!(
            "{} @p0 mbarrier.arrive.shared.b64 _, [s]; @p0 mbarrier.arrive.shared.b64 _, [s];
             bar.sync 0; {} ret;",
            init(1),
            wait(0, 0)
        ),
        FaultKind::PhaseReuse,
        &["has not seen phase 0"],
    );
}

#[test]
fn a_poll_that_fails_lets_others_run() {
    // Warp 0 polls with test_wait and counts; warp 1 arrives after long work.
    let w = words(&format!(
        "{} setp.ge.u32 p1, t, 32; @p1 bra $work;
         $poll: mbarrier.test_wait.parity.shared.b64 p2, [s], 0; @!p2 bra $poll;
         @p0 st.global.b32 [q], t; ret;
         $work: add.u32 x, x, 1; setp.lt.u32 p2, x, 100000; @p2 bra $work;
         mbarrier.arrive.shared.b64 _, [s]; ret;",
        init(32)
    ));
    assert_eq!(w[0], 0);
    // A poll may do other work: here it gives up when a flag in memory says so.
    let w = words(&format!(
        "{} setp.ge.u32 p1, t, 32; @p1 bra $flag;
         $poll: mbarrier.try_wait.parity.shared.b64 p2, [s], 0; @p2 bra $end;
         ld.volatile.global.b32 y, [q+4]; setp.eq.u32 p2, y, 0; @p2 bra $poll;
         st.global.b32 [q], y; $end: ret;
         $flag: bar.sync 1, 32; st.volatile.global.b32 [q+4], 7; ret;",
        init(1)
    ));
    assert_eq!(w[..2], [7, 7]);
}
