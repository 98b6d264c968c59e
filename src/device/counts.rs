//! What the emulator counts, and the time a described device would take for it.

use indexmap::IndexMap;
use serde::{Deserialize, Serialize};

use super::nan;

/// Counts of a job's launches, exact unless CTAs were sampled. Warp-level instructions unless said
/// otherwise.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Counts {
    pub ctas: u64,
    /// CTAs that were executed, if not all were: then every count is extrapolated from them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub executed_ctas: Option<u64>,
    /// Warp instructions executed, by class: `mma`, `alu`, `fma`, `special`, `convert`,
    /// `load_global`, `store_global`, `load_shared`, `store_shared`, `ldmatrix`, `cp_async`,
    /// `tma`, `shuffle`, `branch`, `barrier`, `move`, ...
    pub instructions: IndexMap<String, u64>,
    /// Multiply-adds times two on tensor cores, by operand type (`bf16`, `fp16`, `tf32`, ...).
    pub tensor_flops: IndexMap<String, u64>,
    /// Thread-level special-function operations (ex2, rcp, rsqrt, lg2, ...).
    pub special_ops: u64,
    /// 32-byte sectors that requests touched, each request counting its own.
    pub global_read_sectors: u64,
    pub global_write_sectors: u64,
    /// Distinct sectors touched over the job: the compulsory traffic. Where CTAs were sampled, an
    /// upper bound: each buffer that an executed CTA read (wrote) counts as read (written) whole.
    pub unique_read_sectors: u64,
    pub unique_write_sectors: u64,
    /// Cycles that the shared-memory pipe is busy, and how many of them are bank conflicts.
    pub shared_wavefronts: u64,
    pub bank_conflicts: u64,
    /// Bytes that bulk copies (TMA) read from and write to global memory; their sectors are among
    /// the requested ones.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub bulk_read_bytes: u64,
    #[serde(default, skip_serializing_if = "is_zero")]
    pub bulk_write_bytes: u64,
    /// What a model of L2 made of the requests, where one was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub l2: Option<L2Counts>,
}

fn is_zero(n: &u64) -> bool {
    *n == 0
}

/// What passed a modelled L2: a model of the order of accesses, hence no exact count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct L2Counts {
    /// Sectors read that it held.
    pub read_hit_sectors: u64,
    /// Sectors read that it had to fetch.
    pub read_miss_sectors: u64,
    /// Fetched from device memory.
    pub dram_read_bytes: u64,
    /// Written back to device memory.
    pub dram_write_bytes: u64,
    /// Written, and still in L2 at the end.
    pub left_dirty_bytes: u64,
}

impl L2Counts {
    /// Adds those of the next launch.
    pub fn add(&mut self, o: &L2Counts) {
        self.read_hit_sectors += o.read_hit_sectors;
        self.read_miss_sectors += o.read_miss_sectors;
        self.dram_read_bytes += o.dram_read_bytes;
        self.dram_write_bytes += o.dram_write_bytes;
        self.left_dirty_bytes = o.left_dirty_bytes;
    }
}

impl Counts {
    pub const SECTOR_BYTES: u64 = 32;

    /// Warp instructions of all classes.
    pub fn total_instructions(&self) -> u64 {
        self.instructions.values().sum()
    }

    /// Bytes that must come from and go to device memory, were L2 perfect.
    pub fn unique_bytes(&self) -> u64 {
        (self.unique_read_sectors + self.unique_write_sectors) * Self::SECTOR_BYTES
    }

    /// Adds another launch's counts. Unique sectors add as well, so merge only what is disjoint
    /// or has been made unique already.
    pub fn add(&mut self, other: &Counts) {
        if self.executed_ctas.is_some() || other.executed_ctas.is_some() {
            let executed = |c: &Counts| c.executed_ctas.unwrap_or(c.ctas);
            self.executed_ctas = Some(executed(self) + executed(other));
        }
        self.ctas += other.ctas;
        for (class, n) in &other.instructions {
            *self.instructions.entry(class.clone()).or_default() += n;
        }
        for (dtype, n) in &other.tensor_flops {
            *self.tensor_flops.entry(dtype.clone()).or_default() += n;
        }
        self.special_ops += other.special_ops;
        self.global_read_sectors += other.global_read_sectors;
        self.global_write_sectors += other.global_write_sectors;
        self.unique_read_sectors += other.unique_read_sectors;
        self.unique_write_sectors += other.unique_write_sectors;
        self.shared_wavefronts += other.shared_wavefronts;
        self.bank_conflicts += other.bank_conflicts;
        self.bulk_read_bytes += other.bulk_read_bytes;
        self.bulk_write_bytes += other.bulk_write_bytes;
        if let Some(l2) = &other.l2 {
            self.l2.get_or_insert_default().add(l2);
        }
    }

    /// The counts of `n` disjoint copies of this work. What L2 would make of them is not known.
    pub fn times(&self, n: u64) -> Counts {
        let scale =
            |map: &IndexMap<String, u64>| map.iter().map(|(k, x)| (k.clone(), x * n)).collect();
        Counts {
            ctas: self.ctas * n,
            executed_ctas: self.executed_ctas,
            instructions: scale(&self.instructions),
            tensor_flops: scale(&self.tensor_flops),
            special_ops: self.special_ops * n,
            global_read_sectors: self.global_read_sectors * n,
            global_write_sectors: self.global_write_sectors * n,
            unique_read_sectors: self.unique_read_sectors * n,
            unique_write_sectors: self.unique_write_sectors * n,
            shared_wavefronts: self.shared_wavefronts * n,
            bank_conflicts: self.bank_conflicts * n,
            bulk_read_bytes: self.bulk_read_bytes * n,
            bulk_write_bytes: self.bulk_write_bytes * n,
            l2: self.l2.filter(|_| n == 1),
        }
    }
}

/// A modelled time: never measured, never drawn or compared as measured.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Modelled {
    /// The described device, such as `h200`.
    pub model: String,
    #[serde(deserialize_with = "nan::one")]
    pub ns: f64,
    /// The clock of the multiprocessors that the time is modelled at: the described one, or what its
    /// power limit leaves. Absent in records from before the model knew power.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sm_mhz: Option<f64>,
    /// Nanoseconds each limit alone would take: `memory`, `tensor`, `special`, `issue`,
    /// `shared`, `latency`, ...
    #[serde(deserialize_with = "nan::by_name")]
    pub limits: IndexMap<String, f64>,
    /// The limit that binds.
    pub bound: String,
}
