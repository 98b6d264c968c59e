//! Hopper's asynchronous machinery: mbarriers, bulk copies, clusters and the register pool.
//!
//! Copies land as late as they can: a copy that completes on an mbarrier, when nobody else can move
//! and somebody waits for it; a store to global memory, when its thread waits for its group or its
//! CTA ends. A kernel that does not wait finds its bytes in flight, each time.

mod bulk;
mod cluster;
mod deadlock;
mod flight;
mod mapedit;
mod mbarrier;
mod registers;
mod remote;
mod tensormap;

pub use bulk::{Bulk, Side, reducible};
pub use cluster::{Arrived, Cluster, ClusterBarrier, Peers};
pub use flight::{Flight, Load, Store, element_bytes};
pub use mapedit::Replace;
pub use mbarrier::{Mbar, MbarOp, Mbarriers, Phase, pending_count};
pub use registers::Pool;
pub use remote::{Remote, getctarank, mapa};
pub use tensormap::{FIELDS, Image, Map};

use super::events::{Fence, Ordering, Who};
use super::memory::{self, Shared};
use super::order::Checks;
use super::program::Base;
use super::ptx::ast::Space;
use super::trap::{Fault, FaultKind};
use super::warp::{Context, Wait, Warp};

/// Bits of a `shared::cluster` address that are the offset; above stands the CTA's rank plus one,
/// or zero for the CTA's own memory.
pub const RANK_SHIFT: u32 = 24;

/// An address operand.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Addr {
    pub space: Space,
    pub base: Base,
    pub offset: i64,
}

/// A decoded instruction of this machinery.
#[derive(Debug, Clone, PartialEq)]
pub enum Async {
    Mbar(Mbar),
    /// `test_wait`, `try_wait`: address, phase, destination predicate, order.
    MbarWait {
        at: Addr,
        phase: Phase,
        done: u16,
        order: Ordering,
    },
    /// `cp.async.mbarrier.arrive`
    CopiesArrive {
        at: Addr,
        noinc: bool,
    },
    Bulk(Box<Bulk>),
    BulkCommit,
    BulkWait {
        groups: u32,
        read: bool,
    },
    /// `st.async`, `red.async`
    Remote(Remote),
    SetMaxNreg {
        inc: bool,
        count: u32,
    },
    ClusterArrive {
        aligned: bool,
        order: Ordering,
    },
    ClusterWait {
        aligned: bool,
        order: Ordering,
    },
    Fence(Fence),
    /// `fence.proxy.tensormap::generic.acquire`, or without `fence` `prefetch.tensormap`: the map
    /// must be one.
    TensorMap {
        at: Addr,
        fence: bool,
    },
    /// `tensormap.replace`
    MapReplace(Replace),
    /// `tensormap.cp_fenceproxy`
    MapCopy {
        to: Addr,
        from: Addr,
    },
}

impl Async {
    /// All lanes of the warp must execute it together.
    pub fn aligned(&self) -> bool {
        match self {
            Async::SetMaxNreg { .. } | Async::MapCopy { .. } => true,
            Async::ClusterArrive { aligned, .. } | Async::ClusterWait { aligned, .. } => *aligned,
            _ => false,
        }
    }
}

/// What becomes of a group behind an instruction.
pub enum Flow {
    Next,
    /// It waits, and executes the instruction again afterwards.
    Again(Wait),
}

/// Copies of a cluster that may be in flight, and bytes that they may carry: sound kernels have far
/// fewer, and endless ones stop here.
const MOST_COPIES: usize = 1 << 16;
const MOST_CARRIED: usize = 1 << 28;

/// What the CTAs of a cluster share beside memory.
#[derive(Default)]
pub struct Engine {
    /// Copies that will complete on an mbarrier, in order of issue.
    pub flights: Vec<Flight>,
    /// Copies that belong to bulk groups, likewise.
    pub stores: Vec<Store>,
    /// Registers of each CTA.
    pub pools: Vec<Pool>,
    /// Bytes that flights and stores carry.
    carried: usize,
    pub barrier: ClusterBarrier,
    /// Grows with whatever may let a poller go on.
    pub progress: u64,
    pub checks: Checks,
}

impl Engine {
    /// For a new cluster, whose CTAs have these registers.
    fn reset(&mut self, barrier: ClusterBarrier, pools: impl Iterator<Item = Pool>) {
        self.flights.clear();
        self.stores.clear();
        (self.carried, self.progress) = (0, 0);
        self.barrier = barrier;
        self.pools.clear();
        self.pools.extend(pools);
    }

    /// A copy begins that will complete on an mbarrier.
    ///
    /// # Errors
    /// More copies, or bytes of copies, than a cluster may have in flight.
    pub fn begin_flight(&mut self, flight: Flight) -> Result<(), Box<Fault>> {
        self.carried += flight.load.carries();
        let who = flight.who;
        self.flights.push(flight);
        self.not_too_many(who)
    }

    /// A copy of a bulk group begins.
    ///
    /// # Errors
    /// As [`Engine::begin_flight`].
    pub fn begin_store(&mut self, store: Store) -> Result<(), Box<Fault>> {
        self.carried += store.data.len();
        let who = store.who;
        self.stores.push(store);
        self.not_too_many(who)
    }

    /// Takes out the flight at place `i`.
    fn end_flight(&mut self, i: usize) -> Flight {
        let flight = self.flights.remove(i);
        self.carried -= flight.load.carries();
        flight
    }

    /// Takes out the store at place `i`.
    pub fn end_store(&mut self, i: usize) -> Store {
        let store = self.stores.remove(i);
        self.carried -= store.data.len();
        store
    }

    /// Forgets flights to a CTA that has ended, and from it.
    fn drop_flights(&mut self, rank: u32) {
        let mut i = 0;
        while i < self.flights.len() {
            let f = &self.flights[i];
            if f.signal.0 == rank || f.load.from().is_some_and(|from| from.cta == rank) {
                self.end_flight(i);
            } else {
                i += 1;
            }
        }
    }

    fn not_too_many(&self, who: Who) -> Result<(), Box<Fault>> {
        let copies = self.flights.len() + self.stores.len();
        if copies <= MOST_COPIES && self.carried <= MOST_CARRIED {
            return Ok(());
        }
        Err(too_many(copies, self.carried, who.lanes.trailing_zeros()))
    }
}

/// More copies than are kept.
#[cold]
pub fn too_many(copies: usize, bytes: usize, lane: u32) -> Box<Fault> {
    let message = format!(
        "{copies} asynchronous copies of {bytes} bytes have begun and nobody has waited for them: \
         more are not kept"
    );
    let mut fault = Fault::new(FaultKind::StepLimit, lane, message);
    fault.hint = "wait for copies in the loop that begins them".into();
    fault
}

impl Context<'_> {
    /// Shared memory of the CTA of that rank, which must be in the cluster.
    pub fn shared_of(&mut self, rank: u32) -> &mut Shared {
        if rank == self.rank { self.shared } else { self.peers.get(rank) }
    }

    /// CTA and offset of an address in shared memory.
    ///
    /// # Errors
    /// An address that is not in shared memory, or not in that of the CTA itself where the
    /// instruction says so; a rank that the cluster does not have; a CTA that has exited.
    pub fn place(
        &mut self,
        space: Space,
        address: u64,
        lane: u32,
        what: &str,
    ) -> Result<(u32, u64), Box<Fault>> {
        let refuse =
            |why: String| Err(Fault::new(FaultKind::OutOfBounds, lane, format!("{what}: {why}")));
        let at = match space {
            Space::Generic => match memory::window(address) {
                Some((Space::Shared | Space::Cluster, at)) => at,
                _ => return refuse(format!("address 0x{address:x} is not in shared memory")),
            },
            _ => address,
        };
        let offset = at & ((1 << RANK_SHIFT) - 1);
        let rank = match at >> RANK_SHIFT {
            0 => self.rank,
            r if r <= u64::from(self.peers.count()) => r as u32 - 1,
            r => {
                return refuse(format!(
                    "shared address 0x{at:x} is of CTA {} of a cluster of {}",
                    r - 1,
                    self.peers.count()
                ));
            }
        };
        if rank != self.rank {
            if space == Space::Shared {
                return refuse(format!(
                    "shared address {offset} of CTA {rank} of the cluster, but the instruction \
                     says .shared::cta; .shared::cluster reaches it"
                ));
            }
            self.still_there(rank, lane, what)?;
        }
        Ok((rank, offset))
    }
}

impl Context<'_> {
    /// Refuses to use the memory of a CTA that is gone.
    ///
    /// # Errors
    /// The CTA `rank` has exited.
    pub fn still_there(&mut self, rank: u32, lane: u32, what: &str) -> Result<(), Box<Fault>> {
        let shared = self.shared_of(rank);
        match shared.exited {
            Some(exit) if shared.checks.exits => Err(peer_exited(rank, exit, lane, what)),
            _ => Ok(()),
        }
    }
}

/// A use of memory whose CTA is gone.
fn peer_exited(rank: u32, exit: Who, lane: u32, what: &str) -> Box<Fault> {
    let message = format!(
        "{what}: CTA {rank} of the cluster has exited and its shared memory with it; it must wait, \
         as at barrier.cluster, until nobody uses its memory any more"
    );
    Fault::new(FaultKind::PeerExited, lane, message).against(Some((exit, "exited, its CTA's last")))
}

impl Warp {
    /// Lanes of this warp at instruction `pc`, its CTA being `rank` of the cluster.
    pub fn who(&self, rank: u32, lanes: u32, pc: usize) -> Who {
        Who { cta: rank, warp: self.id, lanes, pc }
    }

    /// Executes one instruction of this machinery for the lanes of `exec`.
    ///
    /// # Errors
    /// The fault of the instruction, as its method of the same name says.
    pub fn asynchronous(
        &mut self,
        cx: &mut Context<'_>,
        at: u32,
        pc: usize,
        exec: u32,
    ) -> Result<Flow, Box<Fault>> {
        let program = cx.program;
        match &program.asyncs[at as usize] {
            Async::Mbar(m) => self.mbarrier(cx, m, pc, exec)?,
            Async::MbarWait { at, phase, done, order } => {
                return self.mbarrier_wait(cx, (*at, *phase, *done, *order), pc, exec);
            }
            Async::CopiesArrive { at, noinc } => self.copies_arrive(cx, *at, *noinc, pc, exec)?,
            Async::Bulk(b) => self.bulk(cx, b, pc, exec)?,
            Async::BulkCommit => {
                for lane in super::access::lanes(exec) {
                    self.bulk_committed[lane as usize] += 1;
                }
            }
            Async::BulkWait { groups, read } => self.bulk_wait(cx, *groups, *read, pc, exec)?,
            Async::Remote(r) => self.remote(cx, r, pc, exec)?,
            Async::SetMaxNreg { inc, count } => {
                return self.set_max_nreg(cx, *inc, *count, pc);
            }
            Async::ClusterArrive { order, .. } => self.cluster_arrive(cx, *order, pc, exec)?,
            Async::ClusterWait { order, .. } => {
                return self.cluster_wait(cx, *order, pc, exec);
            }
            Async::Fence(fence) => {
                let who = self.who(cx.rank, exec, pc);
                cx.events.fence(who, *fence);
            }
            Async::MapReplace(r) => self.map_replace(cx, r, pc, exec)?,
            Async::MapCopy { to, from } => self.map_copy(cx, (*to, *from), pc, exec)?,
            Async::TensorMap { at, fence } => {
                let address = self.addresses(at.base, at.offset);
                for lane in super::access::lanes(exec) {
                    let address = address[lane as usize];
                    cx.tensor_map(at.space, address, lane, "tensor map")?;
                    if *fence {
                        cx.events.order.map_acquired(self.who(cx.rank, 1 << lane, pc), address);
                    }
                }
            }
        }
        Ok(Flow::Next)
    }
}
