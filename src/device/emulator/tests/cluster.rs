//! Clusters: ranks, the memory of other CTAs, their barrier; and the register pool.

use super::hopper::*;
use super::*;
use crate::device::emulator::run_raw_clusters;

fn clusters(grid: [u32; 3], cluster: [u32; 3], body: &str) -> Result<RawOutcome, Box<Trap>> {
    let args = [RawArg::words(0..256), RawArg::InOut(1024)];
    run_raw_clusters(&text(IO, body), "k", [grid, [64, 1, 1], cluster], 32768, &args)
}

fn pair(body: &str) -> Vec<u32> {
    clusters([2, 1, 1], [2, 1, 1], body).unwrap_or_else(|t| panic!("{body}: {t}")).words(0)
}

#[track_caller]
fn pair_fault(body: &str, kind: FaultKind, said: &[&str]) {
    let t = match clusters([2, 1, 1], [2, 1, 1], body) {
        Ok(_) => panic!("no trap: {body}"),
        Err(t) => t,
    };
    let text = t.to_string();
    assert_eq!(t.kind, kind, "{text}");
    assert!(said.iter().all(|w| text.contains(w)), "{text}");
}

const MEET: &str = "barrier.cluster.arrive.release.aligned; barrier.cluster.wait.acquire.aligned;";
/// `x` is the rank, `n` the address of [s] in the other CTA of a pair.
const OTHER: &str =
    "mov.u32 x, %cluster_ctarank; xor.b32 y, x, 1; mapa.shared::cluster.u32 n, s, y;";

#[test]
fn ranks_and_coordinates() {
    // Six CTAs in clusters of 1 x 2: each writes what it sees at its place of the grid.
    let body = "mov.u32 x, %ctaid.x; mov.u32 y, %ctaid.y; mad.lo.u32 x, y, 3, x;
        mul.wide.u32 o, x, 16; add.u64 o, o, q; @!p0 bra $end;
        mov.u32 x, %clusterid.x; mov.u32 y, %clusterid.y; mad.lo.u32 x, y, 100, x;
        mov.u32 y, %cluster_ctaid.y; mov.u32 z, %cluster_ctarank; mad.lo.u32 y, z, 100, y;
        mov.u32 z, %cluster_nctarank; mov.u32 w, %nclusterid.x; mad.lo.u32 z, w, 100, z;
        mov.u32 w, %cluster_nctaid.y; st.global.v4.u32 [o], {x, y, z, w}; $end: ret;";
    let w = clusters([3, 2, 1], [1, 2, 1], body).unwrap().words(0);
    for (i, got) in w[..24].as_chunks::<4>().0.iter().enumerate() {
        let (x, y) = (i as u32 % 3, i as u32 / 3);
        assert_eq!(*got, [x, 101 * y, 302, 2]);
    }
    let t = clusters([3, 1, 1], [2, 1, 1], "ret;").unwrap_err();
    assert!(t.message.contains("no multiple of cluster"), "{t}");
}

#[test]
fn the_memory_of_a_peer() {
    // Loads, stores and atomics, by cluster and by generic address.
    let w = pair(&format!(
        "{OTHER} st.shared.b32 [s], x; mov.u32 z, 0; @p0 st.shared.b32 [s+8], z; {MEET}
         ld.shared::cluster.b32 y, [n]; @p0 st.shared::cluster.b32 [n+4], y;
         atom.shared::cluster.add.u32 z, [n+8], 1; {MEET}
         cvt.u64.u32 o, n; cvta.shared::cluster.u64 o, o; ld.b32 w, [o+4];
         isspacep.shared::cluster p1, o; isspacep.shared::cta p2, o; selp.b32 z, 1, 0, p1;
         @p2 add.u32 z, z, 2; getctarank.u64 y, o; shl.b32 y, y, 4; or.b32 y, y, z;
         ld.shared.b32 z, [s+8]; {MEET}
         shl.b32 x, x, 4; cvt.u64.u32 o, x; add.u64 o, o, q;
         @p0 st.global.v4.b32 [o], {{w, y, z, x}}; ret;"
    ));
    assert_eq!(w[..8], [1, 0x11, 64, 0, 0, 0x01, 64, 16]);
    pair_fault(
        &format!("{OTHER} st.shared.b32 [s], x; {MEET} ld.shared.b32 y, [n]; {MEET} ret;"),
        FaultKind::OutOfBounds,
        &["shared load"],
    );
    pair_fault(
        "mapa.shared::cluster.u32 n, s, 5; ld.shared::cluster.b32 y, [n]; ret;",
        FaultKind::OutOfBounds,
        &["CTA 5 of a cluster of 2"],
    );
    pair_fault(
        &format!(
            "{OTHER} st.shared.b32 [s], x; {MEET} setp.eq.u32 p1, x, 1; @p1 bra $end;
             mov.u32 w, 0; $spin: add.u32 w, w, 1; setp.lt.u32 p2, w, 200000; @p2 bra $spin;
             ld.shared::cluster.b32 y, [n]; $end: ret;"
        ),
        FaultKind::PeerExited,
        &["CTA 1 of the cluster has exited"],
    );
}

#[test]
fn stores_and_reductions_that_complete_on_a_peer() {
    let body = |bytes: u32| {
        format!(
            "{OTHER} @p0 mbarrier.init.shared.b64 [s+64], 1; fence.mbarrier_init.release.cluster; @p0 st.shared.b32 [s+16], 5; {MEET}
             @p0 mbarrier.arrive.expect_tx.shared.b64 _, [s+64], {bytes};
             @p0 st.async.weak.shared::cluster.mbarrier::complete_tx::bytes.v2.b32 [n], {{x, y}}, \
             [n+64];
             @p0 red.async.relaxed.cluster.shared::cluster.mbarrier::complete_tx::bytes.add.u32 \
             [n+16], y, [n+64]; {}
             ld.shared.v2.b32 {{z, w}}, [s]; ld.shared.b32 y, [s+16]; shl.b32 x, x, 4;
             cvt.u64.u32 o, x; add.u64 o, o, q; @p0 st.global.v4.b32 [o], {{z, w, y, x}};
             {MEET} ret;",
            wait(64, 0)
        )
    };
    assert_eq!(pair(&body(12))[..8], [1, 0, 5, 0, 0, 1, 6, 16]);
    pair_fault(&body(16), FaultKind::Transaction, &["4 bytes missing"]);
}

#[test]
fn multicast_reaches_every_rank_of_its_mask() {
    let body = |mask: u32| {
        format!(
            "{OTHER} {} {MEET} @p0 mbarrier.arrive.expect_tx.shared.b64 _, [s], 256;
             setp.eq.and.u32 p1, x, 0, p0; mov.b32 {{h, g}}, {mask};
             @p1 cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes\
             .multicast::cluster [s+1024], [p], 256, [s], h;
             {} shl.b32 z, x, 8; shl.b32 y, t, 2; add.u32 w, s, y; ld.shared.b32 w, [w+1024];
             add.u32 y, y, z; cvt.u64.u32 o, y; add.u64 o, o, q; st.global.b32 [o], w;
             {MEET} ret;",
            init(1),
            wait(0, 0)
        )
    };
    let w = pair(&format!(".reg .b16 h, g; {}", body(3)));
    assert_eq!(w[..64], (0..64).collect::<Vec<_>>()[..]);
    assert_eq!(w[64..128], (0..64).collect::<Vec<_>>()[..]);
    pair_fault(
        &format!(".reg .b16 h, g; {}", body(1)),
        FaultKind::Transaction,
        &["CTA 1 warps 0 to 1", "256 bytes missing"],
    );
    pair_fault(&format!(".reg .b16 h, g; {}", body(5)), FaultKind::Operand, &["mask 0x5"]);
}

#[test]
fn arrivals_at_a_peer() {
    let w = pair(&format!(
        "{OTHER} {} {MEET} mbarrier.arrive.release.cluster.shared::cluster.b64 _, [n]; {}
         shl.b32 x, x, 2; cvt.u64.u32 o, x; add.u64 o, o, q; @p0 st.global.b32 [o], 9; {MEET} ret;",
        init(64),
        wait(0, 0)
    ));
    assert_eq!(w[..2], [9, 9]);
}

#[test]
fn the_barrier_of_a_cluster() {
    use FaultKind::{Deadlock, Divergence};
    // Threads that exit are not waited for.
    let w = pair(&format!(
        "{OTHER} setp.ge.u32 p1, t, 40; @p1 bra $end; barrier.cluster.arrive; barrier.cluster.wait;
         shl.b32 x, x, 2; cvt.u64.u32 o, x; add.u64 o, o, q; @p0 st.global.b32 [o], 3; $end: ret;"
    ));
    assert_eq!(w[..2], [3, 3]);
    pair_fault("barrier.cluster.wait; ret;", Divergence, &["has not arrived"]);
    pair_fault(
        "barrier.cluster.arrive; barrier.cluster.arrive; ret;",
        Divergence,
        &["has arrived already"],
    );
    pair_fault(
        &format!("{OTHER} setp.eq.u32 p1, x, 1; @p1 bar.sync 1, 128; {MEET} ret;"),
        Deadlock,
        &[
            "CTA 0 warps 0 to 1",
            "barrier.cluster, 64 of 128 threads missing",
            "CTA 1 warps 0 to 1",
            "barrier 1",
        ],
    );
}

/// Two warpgroups; 128 registers at entry.
fn warpgroups(body: &str) -> Result<RawOutcome, Box<Trap>> {
    let text = text(IO, body).replace(".maxntid 256", ".maxntid 512");
    let args = [RawArg::words(0..4), RawArg::InOut(16)];
    run_raw(&text, "k", [1; 3], [512, 1, 1], 1024, &args)
}

#[test]
fn registers_come_from_a_pool() {
    let program = |dec: u32, inc: u32| {
        format!(
            "setp.ge.u32 p1, t, 256; @p1 bra $more; setmaxnreg.dec.sync.aligned.u32 {dec}; ret;
             $more: setmaxnreg.inc.sync.aligned.u32 {inc}; st.global.b32 [q], 1; ret;"
        )
    };
    assert_eq!(warpgroups(&program(24, 232)).unwrap().registers, 128);
    let says = |body: &str, kind: FaultKind, said: &str| {
        let t = warpgroups(body).unwrap_err();
        assert!(t.kind == kind && t.to_string().contains(said), "{t}");
    };
    use FaultKind::Registers;
    // The first warps of the upper half take what there is.
    says(&program(24, 240), Registers, "112 registers a thread more, of which the CTA's pool has");
    says(&program(136, 232), Registers, "setmaxnreg.dec to 136 registers, but the warp holds 128");
    says(
        "setmaxnreg.dec.sync.aligned.u32 120; setmaxnreg.inc.sync.aligned.u32 112; ret;",
        Registers,
        "setmaxnreg.inc to 112 registers, but the warp holds 120",
    );
    says(
        "setp.ge.u32 p1, t, 32; @p1 bra $more; setmaxnreg.dec.sync.aligned.u32 24; ret;
         $more: setmaxnreg.dec.sync.aligned.u32 32; ret;",
        Registers,
        "all warps of a warpgroup must execute the same",
    );
    says(
        "setp.ge.u32 p1, t, 32; @p1 bra $end; setmaxnreg.dec.sync.aligned.u32 24; $end: ret;",
        Registers,
        "never executed",
    );
    let refused = warpgroups("setmaxnreg.dec.sync.aligned.u32 20; ret;").unwrap_err();
    assert!(refused.message.contains("multiple of 8"), "{refused}");
}
