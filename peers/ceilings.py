"""What the GPU itself reaches, timed as docs/method.md has it: a matrix product and a copy.

    python peers/ceilings.py --out ceilings.jsonl

A bf16 product of two 8192 x 8192 matrices by cuBLAS, of normal random numbers (zeros would draw less
power), and a copy of 8 GiB. To be run beside a sweep, for GPUs of one model differ under the power limit.
Writes an object a line: what, versions, ms, ci_ms, samples, settled, and tflops or gbps.
"""

import argparse
import json

import torch
from attention_speed import measure

N = 8192
COPIED = 8 << 30


def main():
    args = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    args.add_argument("--out", required=True)
    args = args.parse_args()
    facts = {"device": torch.cuda.get_device_name(), "versions": {"torch": torch.__version__}}
    torch.manual_seed(0)
    a, b = (torch.randn(N, N, device="cuda", dtype=torch.bfloat16) for _ in range(2))
    c = torch.empty_like(a)
    source = torch.randint(0, 255, (COPIED,), device="cuda", dtype=torch.uint8)
    to = torch.empty_like(source)
    with open(args.out, "w") as out:
        row = {"what": f"bf16 product, {N} x {N} x {N}"} | facts
        row |= measure(lambda: torch.mm(a, b, out=c))
        row["tflops"] = 2 * N**3 / row["ms"] / 1e9
        out.write(json.dumps(row) + "\n")
        row = {"what": "copy of 8 GiB, read and written"} | facts | measure(lambda: to.copy_(source))
        row["gbps"] = 2 * COPIED / row["ms"] / 1e6
        out.write(json.dumps(row) + "\n")


if __name__ == "__main__":
    main()
