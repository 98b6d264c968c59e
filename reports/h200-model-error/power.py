#!/usr/bin/env python3
"""Fits the power of devices/h200.toml to clocks that GPUs held.

    python3 power.py counted.json

Each file is what `crossover model-check --as-run --out DIR` wrote: measured clocks beside what
was counted. Where the clock fell, the watts of the model (src/device/model/power.rs) at that clock, over the
measured time, should be the limit; elsewhere they should be below it. The slope of the voltage is taken to be 0.5:
any from 0.2 to 0.8 meets the clocks as well, with other energies. The watts are linear in the other parameters;
each is drawn to a guess of what such chips need, for clocks alone do not tell them all apart. Measured times
serve as what the energy is spread over, and for nothing else.
"""

import json
import sys

LIMIT_W, SM_MHZ, BETWEEN_NS, SLOPE = 700.0, 1830.0, 60_000.0, 0.5
FREE_MHZ = 1780.0  # above it a clock is taken to be held back by nothing
# Names, guesses and how far (in parts) from the guess one standard deviation is.
PARAMETERS = [
    ("constant_w", 150.0, 0.1),
    ("clock_w", 150.0, 0.3),
    ("between_w", 350.0, 0.15),
    ("wgmma_pj", 0.45, 0.5),
    ("mma_pj", 0.6, 0.5),
    ("instruction_pj", 80.0, 0.7),
    ("shared_byte_pj", 1.0, 0.7),
    ("l2_byte_pj", 8.0, 0.5),
    ("dram_byte_pj", 40.0, 0.3),
]
SIGMA = 0.06  # of the limit: GPUs differ


def row(case):
    """The watts that each parameter has for its unit."""
    r = min(case["measured_mhz"] / SM_MHZ, 1.0)
    v2 = (1 - SLOPE * (1 - r)) ** 2
    period = case["measured_ns"] + BETWEEN_NS
    sums = {}
    for launch in case["launches"]:
        for name, n in launch["energy"].items():
            sums[name] = sums.get(name, 0.0) + n
    pj = lambda name: sums[name] / 1e3 / period
    return [
        1.0,
        v2 * r,
        BETWEEN_NS / period,
        v2 * pj("wgmma_flops"),
        v2 * pj("mma_flops"),
        v2 * pj("instructions"),
        v2 * pj("shared_bytes"),
        v2 * pj("l2_bytes"),
        pj("dram_bytes"),
    ]


def fit(cases):
    """Parameters, none negative, and the cost they leave."""
    rows = [(row(c), c["measured_mhz"] >= FREE_MHZ) for c in cases]
    x = [guess for _, guess, _ in PARAMETERS]
    watts = lambda a: sum(p * q for p, q in zip(a, x))
    for _ in range(100):
        used = [a for a, free in rows if not free or watts(a) > LIMIT_W]
        before = list(x)
        for i, (_, guess, part) in enumerate(PARAMETERS):
            weight, pull = 1 / (part * guess) ** 2, guess / (part * guess) ** 2
            for a in used:
                scale = 1 / (SIGMA * LIMIT_W) ** 2
                weight += scale * a[i] ** 2
                pull += scale * a[i] * (LIMIT_W - watts(a) + a[i] * x[i])
            x[i] = max(pull / weight, 0.0)
        if all(abs(p - q) <= 1e-9 * max(p, 1e-9) for p, q in zip(x, before)):
            break
    return x


def held(case, x):
    """The clock that the model gives, with the measured cycles."""
    low, high = 600.0, SM_MHZ
    while high - low > 1:
        mhz = (low + high) / 2
        ns = case["measured_ns"] * case["measured_mhz"] / mhz
        watts = sum(p * q for p, q in zip(row(dict(case, measured_mhz=mhz, measured_ns=ns)), x))
        low, high = (mhz, high) if watts <= LIMIT_W else (low, mhz)
    return low


def main():
    cases = [c for path in sys.argv[1:] for c in json.load(open(path))["variants"]]
    cases = [c for c in cases if c["same_ptx"] and c.get("measured_mhz")]
    x = fit(cases)
    print(f"limit_w = {LIMIT_W}\nbetween_ns = {BETWEEN_NS}\nvoltage_slope = {SLOPE}")
    for (name, _, _), value in zip(PARAMETERS, x):
        print(f"{name} = {value:.3g}")
    slow = [c for c in cases if c["measured_mhz"] < FREE_MHZ]
    ratios = sorted(held(c, x) / c["measured_mhz"] for c in slow)
    mean = sum(ratios) / len(ratios)
    print(f"# {len(cases)} cases, {len(slow)} held back; modelled / measured clock of those:")
    print(f"# {ratios[0]:.2f} to {ratios[-1]:.2f}, {mean:.3f} on average")


if __name__ == "__main__":
    main()
